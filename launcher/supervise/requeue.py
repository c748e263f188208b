"""Puts a job back into the queue under its id, without its bad nodes and without Slurm's 121 s. Standard library only.

The requeue is asked for while the job still lives, and its supervisor waits for the answer: with control groups
nothing of a job outlives it. After a requeue Slurm sets the begin time to the credential's lifetime plus one second.
The job's owner may set it to now, but only once the job is PENDING and no longer COMPLETING: sooner, and Slurm
overwrites it (seen on 22.05.8). By then every process of the job is dead, so this runs as a process of its own that has
left the job's process tree. Where control groups catch it all the same, the submitter's `wait` does the same step, and
otherwise the job starts 121 s later by itself.
"""

import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from trainmaster.errors import SlurmError, SlurmUnreachable
from trainmaster.launcher import record
from trainmaster.slurm.client import SlurmClient
from trainmaster.slurm.commands import Commands
from trainmaster.slurm.values import Job

LOG = logging.getLogger("trainmaster.requeue")
PATIENCE_S = 900.0
"""A dead node can hold the job in COMPLETING until Slurm has marked it DOWN (SlurmdTimeout, 300 s in production)."""
POLL_S = 0.25
_QUICK_S = 1.5
LAUNCHES_MAX = 3
"""How often a requeued job may fail to be launched before its failure is its end."""
_REFUSAL_PAUSES_S = (1.0, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to do with a job."""

    job_id: int | str
    """12, or 12_3 for a task of an array: the array's number alone would requeue all of its tasks."""
    restarts: int
    """Slurm's restart count before the requeue."""
    exclude: str = ""
    """The whole ExcNodeList: the user's own and ours."""
    clear: bool = False
    """Nothing is excluded any more, and what Slurm still has is to go."""
    hold: bool = False
    """Leave the job held in the queue."""
    dead: tuple[str, ...] = ()
    """Nodes that will never say that they have cleaned up."""
    components: tuple[int, ...] = ()
    """Of a heterogeneous job, whose leader `job_id` is, the numbers of the other components."""


class Step(StrEnum):
    """What comes next."""

    REQUEUE = "requeue"
    WAIT = "wait"
    RELEASE = "release"
    DONE = "done"
    GIVE_UP = "give up"


def next_step(job: Job | None, order: Order, *, now: float) -> Step:
    """What the job's state asks for now. Pure."""
    if job is None or job.state == "CANCELLED":
        return Step.GIVE_UP
    if job.restarts <= order.restarts:
        return Step.WAIT if job.state == "COMPLETING" else Step.REQUEUE
    if job.state != "PENDING":
        # COMPLETING: too early. Anything else: it has started, or even ended, again.
        return Step.WAIT if job.state == "COMPLETING" else Step.DONE
    delayed = job.eligible_time is None or job.eligible_time > now + 1.0 or "BeginTime" in job.reason
    excluded = (not order.exclude or job.excluded_nodes != "") and not (order.clear and job.excluded_nodes)
    if not delayed and excluded and not order.hold:
        return Step.DONE
    # A requeue sets the submit time. slurmd refuses a job on a node where it was revoked in the very same second, and
    # Slurm then calls the job FAILED ("Job credential revoked", 22.05.8; one in ten requeues of jobs of a moment).
    again = job.submit_time is not None and now < job.submit_time + 1.0
    return Step.WAIT if again else Step.RELEASE


def next_of_all(steps: Sequence[Step]) -> Step:
    """What comes next for a heterogeneous job; the leader's step first. Pure.

    Slurm requeues and releases all components with the leader, but each comes out of COMPLETING in its own time.
    """
    leader, *others = steps
    if leader is Step.GIVE_UP or not others:
        return leader
    patient = [Step.WAIT if step is Step.REQUEUE and leader is not Step.REQUEUE else step for step in others]
    order = (Step.WAIT, Step.REQUEUE, Step.RELEASE)
    return next((step for step in order if step is leader or step in patient), leader)


def release(client: SlurmClient, order: Order) -> None:
    """Let a requeued job start at once, on other nodes than the excluded ones."""
    fields = {"StartTime": "now"}
    if order.exclude or order.clear:
        fields["ExcNodeList"] = order.exclude
    client.update_job(order.job_id, **fields)


def _step(client: SlurmClient, order: Order) -> Step:
    jobs = [client.job(number) for number in (order.job_id, *order.components)]
    return next_of_all([next_step(job, order, now=time.time()) for job in jobs])


def ask(client: SlurmClient, order: Order, *, patience_s: float = PATIENCE_S) -> None:
    """Have Slurm take the requeue on. Waits for an slurmctld that is away: a job that ends without it stays ended."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            if _step(client, order) is Step.REQUEUE:
                put_back(client, order)
            return
        except SlurmUnreachable as error:
            LOG.warning("job %s: %s", order.job_id, error)
            if time.monotonic() > deadline:
                return
            time.sleep(2.0)
        except SlurmError as error:
            LOG.warning("job %s: %s", order.job_id, error)
            return  # `carry_out` tries again


def carry_out(client: SlurmClient, order: Order, *, patience_s: float = PATIENCE_S) -> bool:
    """Requeue and release; True once the job may start. Survives an slurmctld that is away for a while."""
    deadline = time.monotonic() + patience_s
    pause_s = POLL_S
    asked_at: float | None = None
    while time.monotonic() < deadline:
        try:
            step = _step(client, order)
            if step in (Step.DONE, Step.GIVE_UP):
                LOG.info("job %s: %s", order.job_id, step)
                return step is Step.DONE
            if step is Step.REQUEUE and (asked_at is None or time.monotonic() - asked_at > 5.0):
                asked_at = time.monotonic()
                put_back(client, order)
            elif step is Step.RELEASE:
                # slurmd refuses a credential of the second in which it revoked that of the attempt before.
                time.sleep(1.05 - time.time() % 1.0)
                release(client, order)
                if order.hold:
                    return True  # its state does not show any more whether there is something left to do
            pause_s = POLL_S if step is not Step.WAIT else min(2.0, pause_s * 1.1)
        except SlurmError as error:
            LOG.warning("job %s: %s", order.job_id, error)
            pause_s = 2.0
        time.sleep(pause_s)
    return False


def was_refused(client: SlurmClient, run_dir: Path, order: Order) -> bool:
    """Whether the attempt after the requeue ended before its batch step ran: slurmd did not take it.

    "Job credential revoked" (22.05.8), when it was launched in the second in which the attempt before was torn down, as
    that node's clock has it. Slurm calls it FAILED, like a program's failure; only the record tells that nothing ran.
    """
    for pause_s in _REFUSAL_PAUSES_S:
        time.sleep(pause_s)
        try:
            job = client.job(order.job_id)
        except SlurmError:
            continue
        if any(event.state == "STARTING" and event.attempt > order.restarts for event in record.read(run_dir)):
            return False
        if job is None or job.state == "CANCELLED":
            return False
        if not job.active and job.restarts > order.restarts:
            LOG.warning("job %s: attempt %d was refused; once more", order.job_id, job.restarts)
            return True
    return False


def put_back(client: SlurmClient, order: Order) -> None:
    """Requeue, after taking the dead nodes out of the allocation.

    A dead node that Slurm still believes in would hold the job in COMPLETING until SlurmdTimeout (300 s in production).
    A running job's owner may shrink it, and then nobody waits for that node (seen on 22.05.8).
    """
    for number in (order.job_id, *order.components) if order.dead else ():
        job = client.job(number)
        if job is None or job.state != "RUNNING":
            continue
        held = client.hostnames(job.nodes)
        kept = [node for node in held if node not in order.dead]
        if kept and len(kept) < len(held):
            try:
                client.update_job(number, NodeList=",".join(kept))
            except SlurmError as error:
                # The first node of a component, which Slurm calls its batch host, cannot be taken out.
                LOG.warning("job %s keeps its dead nodes: %s", number, error)
    client.requeue(order.job_id, incomplete=False, hold=order.hold)


def leave_out(client: SlurmClient, order: Order) -> None:
    """Tell Slurm which nodes to leave out, right after the requeue: who releases the job may not live to do it.

    Slurm takes and keeps it while the job is COMPLETING (seen on 22.05.8).
    """
    if order.exclude or order.clear:
        try:
            client.update_job(order.job_id, ExcNodeList=order.exclude)
        except SlurmError as error:
            LOG.warning("job %s: the release will say which nodes to leave out: %s", order.job_id, error)


def _leave_the_job() -> int:
    """Become nobody's child, so that the end of the job's process tree is not ours.

    Whoever called this program waits until the descriptor that this returns is closed.
    """
    told, tell = os.pipe()
    if os.fork():
        os.close(tell)
        os.read(told, 1)
        os._exit(0)
    os.close(told)
    os.setsid()
    if os.fork():
        os._exit(0)
    # `scontrol update NodeList=` leaves scripts in its working folder.
    os.chdir(tempfile.mkdtemp(prefix="trainmaster-requeue-"))
    return tell


def main(argv: list[str]) -> int:
    """`python -m trainmaster.launcher.supervise.requeue RUN_DIR ORDER_JSON`; back once Slurm was asked, works on."""
    values: dict[str, Any] = json.loads(argv[1])
    for key in ("dead", "components"):
        values[key] = tuple(values.get(key, ()))
    order = Order(**values)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    # The requeue has Slurm end the job with SIGTERM to all of it; SIGKILL follows when the batch script has ended.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    foreground = _leave_the_job()
    client = Commands(timeout_s=20.0)
    try:
        ask(client, order)
        # Without accounting Slurm tries for five seconds to change a job that has lost a node, in vain.
        leave_out(Commands(timeout_s=_QUICK_S), order)
        os.close(foreground)
        for _ in range(LAUNCHES_MAX):
            if not carry_out(client, order):
                return 1
            if order.hold or not was_refused(client, Path(argv[0]), order):
                break
            order = replace(order, restarts=order.restarts + 1)
        return 0
    finally:
        shutil.rmtree(Path.cwd(), ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
