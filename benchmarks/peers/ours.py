"""(d) trainmaster: the same script, four nodes and one spare."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peers.work import PYTHON, RANKS, Place, Work
from trainmaster.lab.cluster import Lab
from trainmaster.launcher import record
from trainmaster.launcher.submit.executor import submit
from trainmaster.launcher.submit.spec import JobSpec

HANG_TIMEOUT_S = 10.0
"""The others have time-outs as short as a careful person would make them; ours for the next step is half an hour."""


@contextmanager
def environment_of(lab: Lab, folder: Path) -> Iterator[None]:
    """What is submitted meanwhile goes to the lab, and not into the person's list of jobs."""
    before = dict(os.environ)
    # The lab cleans the environment of this moment, so it must be asked before that is emptied.
    wanted = lab.env | {"XDG_STATE_HOME": str(folder / "state")}
    os.environ.clear()
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def start(lab: Lab, work: Work) -> int:
    """Submit it; returns the job id."""
    return _submit(lab, work, spares=work.spares)


def start_cold(lab: Lab, work: Work) -> int:
    """The same with a new interpreter for every rank at every start."""
    return _submit(lab, work, spares=work.spares, warm=False)


def start_without_spare(lab: Lab, work: Work) -> int:
    """The same in an allocation that has no node to lose, so that the job must be requeued."""
    return _submit(lab, work, spares=0)


def _submit(lab: Lab, work: Work, *, spares: int, warm: bool = True) -> int:
    with environment_of(lab, work.folder):
        spec = JobSpec(
            name="trainmaster",
            nodes=RANKS,
            spares=spares,
            refill=spares > 0,
            time=300,
            warm=warm,
            restarts_max=1000,
            requeues_max=1000,
            node_failures_max=1000,
            hang_timeout_s=HANG_TIMEOUT_S,
        )
        job = submit([PYTHON, *work.words], spec=spec, folder=work.folder / "jobs")
    (work.folder / "run").symlink_to(job.run_dir)
    return int(job.job_id)


def place(lab: Lab, work: Work, job_id: int) -> Place:
    """A rank that does not share its node with the supervisor."""
    events = record.read(work.folder / "run")
    nodes = [event for event in events if event.state == "RUNNING"][-1].nodes
    supervisor = next(event.detail["node"] for event in events if event.state == "STARTING")
    rank = next(rank for rank in (1, 2) if nodes[rank] != supervisor)
    return Place(rank=rank, node=nodes[rank])
