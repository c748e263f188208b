"""One measurement: a lab, a job, a fault, and the seconds until the next new step."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from peers import checkpointable
from peers.table import Peer
from peers.work import RANKS, SPARES, Place, Work

from measure import steps
from trainmaster.errors import SlurmError, TrainmasterError
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.slurm.commands import Commands

FAULTS = ("rank_crash", "node_death", "node_freeze")
MORE_FAULTS = ("hang", "supervisor_death")
"""A rank that stands still; and the death of the batch host, which holds trainmaster's supervisor."""
LAB_NODES = RANKS + SPARES + 1
CHECKPOINT_EVERY = 10
COLLECTIVE_TIMEOUT_S = 30.0
SETTLE_S = 10.0
"""From the first step to the fault: a run in full flow, for all alike."""
START_LIMIT_S = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One repeat."""

    peer: str
    fault: str
    recovered_s: float | None = None
    first_again_s: float | None = None
    lost_steps: int | None = None
    step_ms: float | None = None
    """A step's usual time before the fault."""
    note: str = ""


class Stuck(TrainmasterError):
    """A run did not get to where the fault is injected."""


def measure(peer: Peer, fault: str, folder: Path) -> Measured:
    """Build a lab, start the training, break something, wait for a new step. Nothing is left but files in `folder`."""
    work = Work(folder=folder, checkpoint_every=CHECKPOINT_EVERY, collective_timeout_s=COLLECTIVE_TIMEOUT_S)
    folder.mkdir(parents=True)
    try:
        with up(LabSpec(nodes=LAB_NODES, settings=peer.settings)) as lab:
            return strike(lab, peer, work, peer.start(lab, work), fault, settle_s=SETTLE_S)
    except TrainmasterError as error:
        return Measured(peer=peer.name, fault=fault, note=str(error))


def strike(lab: Lab, peer: Peer, work: Work, job_id: int, fault: str, *, settle_s: float) -> Measured:
    """Break something in a run that has flowed for `settle_s`, and wait for a new step."""
    await_flow(lab, work, job_id, settle_s)
    place = peer.place(lab, work, job_id)
    before_s = time.time()
    struck_s = inject(lab, peer, work, job_id, fault, place) or before_s
    recovery, note = await_recovery(lab, work, job_id, struck_s, time.time(), peer.limit_s)
    flowing = [entry for entry in steps.read(work.metrics) if before_s - settle_s < entry.epoch_s <= before_s]
    step_ms = (flowing[-1].epoch_s - flowing[0].epoch_s) / (len(flowing) - 1) * 1000 if len(flowing) > 1 else None
    return Measured(
        peer=peer.name,
        fault=fault,
        recovered_s=recovery.recovered_s,
        first_again_s=recovery.first_again_s,
        lost_steps=recovery.lost_steps,
        step_ms=step_ms,
        note=note,
    )


def await_flow(lab: Lab, work: Work, job_id: int, settle_s: float) -> None:
    """Wait until the run has gone on for a while and is half-way between two checkpoints."""
    deadline_s = time.monotonic() + START_LIMIT_S
    began_s = time.time()
    while time.monotonic() < deadline_s:
        seen = steps.read(work.metrics)
        since_s = max(began_s, seen[0].epoch_s) if seen else began_s
        flowing = bool(seen) and time.time() - since_s > settle_s and seen[-1].step > 2 * CHECKPOINT_EVERY
        if flowing and seen[-1].step % CHECKPOINT_EVERY == CHECKPOINT_EVERY // 2:
            return
        if not seen and (gone := why_gone(lab, job_id)):
            raise Stuck(f"the training never began: {gone}; it said: {last_words(work)}")
        time.sleep(0.01 if flowing else 0.2)
    raise Stuck(f"no flow of steps after {START_LIMIT_S:g} s; it said: {last_words(work)}")


def inject(lab: Lab, peer: Peer, work: Work, job_id: int, fault: str, place: Place) -> float | None:
    """Do the fault; returns when it was done (epoch seconds), if that was one moment."""
    if fault == "node_death":
        lab.fault("node-death", place.node)
    elif fault == "node_freeze":
        lab.fault("node-freeze", place.node)
    elif fault == "supervisor_death":
        lab.fault("node-death", batch_host(lab, job_id))
    elif fault == "hang":
        os.kill(pid_of(lab, peer, work, job_id, place.rank), signal.SIGSTOP)
    elif peer.start is checkpointable.start:
        pid = checkpointable.pid_of_rank(lab, job_id, place.rank)
        struck_s = time.time()
        os.kill(pid, signal.SIGKILL)
        return struck_s
    else:
        return lab.fault("rank-crash", f"{job_id}:{place.rank}", **of_run(peer, work)).epoch_s
    return None


def of_run(peer: Peer, work: Work) -> dict[str, Path]:
    """Where trainmaster keeps the pids of its ranks, for the lab's faults."""
    return {"run_dir": work.folder / "run"} if peer.ours else {}


def pid_of(lab: Lab, peer: Peer, work: Work, job_id: int, rank: int) -> int:
    """The process of a rank."""
    if peer.start is checkpointable.start:
        return checkpointable.pid_of_rank(lab, job_id, rank)
    return lab.fault("rank-crash", f"{job_id}:{rank}", dry_run=True, **of_run(peer, work)).pids[0]


def batch_host(lab: Lab, job_id: int) -> str:
    """Where Slurm runs the batch script."""
    job = Commands(env=lab.env).job(job_id)
    assert job is not None, f"job {job_id} has left the queue"
    return job.batch_host


def await_recovery(
    lab: Lab, work: Work, job_id: int, before_s: float, after_s: float, limit_s: float
) -> tuple[steps.Recovery, str]:
    """Wait for a new step. Returns what there is, and why it ended without one if it did."""
    asked_s = time.monotonic()
    while True:
        found = steps.recovery(steps.read(work.metrics), before_s=before_s, after_s=after_s)
        waited_s = time.time() - after_s
        if found.recovered_s is not None:
            return found, ""
        if waited_s > limit_s:
            return found, f"no new step within {limit_s:g} s"
        if time.monotonic() - asked_s > 5.0:
            asked_s = time.monotonic()
            if gone := why_gone(lab, job_id):
                return found, f"{gone}; it said: {last_words(work)}"
        time.sleep(0.05 if waited_s < 20 else 0.5)


def why_gone(lab: Lab, job_id: int) -> str:
    """How a job has ended, or nothing while it may still run."""
    try:
        job = Commands(env=lab.env).job(job_id)
    except SlurmError:
        return ""  # slurmctld is busy with the dead node; the metrics file tells in any case
    if job is None:
        return "Slurm no longer knows the job"
    return "" if job.active else f"the job has ended as {job.state}"


def last_words(work: Work) -> str:
    """The end of what the job printed, on one line."""
    outputs = [work.output, *sorted(work.folder.glob("submitit/*.err")), *sorted(work.folder.glob("run/batch.out"))]
    text = "\n".join(path.read_text(errors="replace") for path in outputs if path.exists())
    return " | ".join(text.strip().splitlines()[-4:])[-400:] or "nothing"
