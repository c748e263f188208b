"""Who is compared: each way to keep the training running, on one tuning of Slurm."""

from collections.abc import Callable
from dataclasses import dataclass

from peers import checkpointable, elastic_torchrun, nvrx, ours, plain_sbatch
from peers.work import Place, Work
from trainmaster.lab.cluster import Lab

TUNED = {
    "SlurmdTimeout": "15",
    "AuthInfo": "cred_expire=5",
    "SchedulerParameters": "sched_interval=2,bf_interval=2",
}
"""The friendliest that Slurm allows: nodes are given up after 15 s, a requeued job may start after 6 s, not 121, and
then waits 2 s for the scheduler to come by, not 30. A large cluster could not afford the first and the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One way to keep the training running, on one tuning of Slurm."""

    name: str
    title: str
    start: Callable[[Lab, Work], int]
    place: Callable[[Lab, Work, int], Place]
    settings: dict[str, str]
    limit_s: float
    production: bool = False
    ours: bool = False
    when_asked: bool = False
    """Measured only when it is named."""


PEERS = (
    Peer(
        name="trainmaster",
        title="trainmaster, 1 spare",
        start=ours.start,
        place=ours.place,
        settings={},
        limit_s=120,
        ours=True,
    ),
    Peer(
        name="trainmaster_cold",
        title="trainmaster, 1 spare, cold starts",
        start=ours.start_cold,
        place=ours.place,
        settings={},
        limit_s=120,
        ours=True,
        when_asked=True,
    ),
    Peer(
        name="trainmaster_requeue",
        title="trainmaster, no spare: requeue",
        start=ours.start_without_spare,
        place=ours.place,
        settings={},
        limit_s=300,
        ours=True,
        when_asked=True,
    ),
    Peer(
        name="nvrx",
        title="nvidia-resiliency-ext ft_launcher 4:5",
        start=nvrx.start,
        place=nvrx.place,
        settings={},
        limit_s=300,
        when_asked=True,
    ),
    Peer(
        name="torchrun_tuned",
        title="torchrun 4:5, tuned rendezvous",
        start=elastic_torchrun.start_tuned,
        place=elastic_torchrun.place,
        settings={},
        limit_s=300,
    ),
    Peer(
        name="torchrun",
        title="torchrun 4:5, default rendezvous",
        start=elastic_torchrun.start,
        place=elastic_torchrun.place,
        settings={},
        limit_s=300,
    ),
    Peer(
        name="sbatch_tuned",
        title="sbatch --requeue, tuned Slurm",
        start=plain_sbatch.start,
        place=plain_sbatch.place,
        settings=TUNED,
        limit_s=300,
    ),
    Peer(
        name="submitit_tuned",
        title="submitit, tuned Slurm",
        start=checkpointable.start,
        place=checkpointable.place,
        settings=TUNED,
        limit_s=300,
    ),
    Peer(
        name="sbatch_production",
        title="sbatch --requeue, production",
        start=plain_sbatch.start,
        place=plain_sbatch.place,
        settings={},
        limit_s=1200,
        production=True,
    ),
    Peer(
        name="submitit_production",
        title="submitit, production",
        start=checkpointable.start,
        place=checkpointable.place,
        settings={},
        limit_s=1200,
        production=True,
    ),
)


def by_name(name: str) -> Peer:
    """The peer of that name."""
    return next(peer for peer in PEERS if peer.name == name)
