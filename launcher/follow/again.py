"""Putting a job back into the queue because somebody wants it: first the reason is written, then Slurm is told."""

import time
from dataclasses import dataclass

from trainmaster.errors import SlurmError, UsageError
from trainmaster.launcher import intent, record
from trainmaster.launcher.follow.cancel import may_save
from trainmaster.launcher.follow.watch import PATIENCE_S, Watch
from trainmaster.launcher.supervise import requeue

SAVE_PATIENCE_S = 45.0
"""How long a running job may take to save and to record its requeue; Slurm's KillWait is 30 s by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeued:
    """What became of it."""

    attempt: int
    """The attempt that it ends, or ended."""
    state: str
    """REQUEUED; or what the job's record says so far."""


def refuse_unless_requeueable(watch: Watch) -> str:
    """What Slurm calls the job now. Raises UsageError for one that waits already, or that Slurm has forgotten."""
    answer = watch.ask_closely(patience_s=6 * PATIENCE_S)
    if answer is None:
        raise SlurmError(f"could not requeue job {watch.job_id}: Slurm does not say how it stands; try again later")
    if answer.job is None:
        raise UsageError(
            f"could not requeue job {watch.job_id}: Slurm has forgotten it, or gave its number to another",
            hint="Slurm keeps an ended job for some minutes only (MinJobAge); submit it again",
        )
    if answer.job.state == "PENDING":
        raise UsageError(f"could not requeue job {watch.job_id}: it waits in the queue already")
    return answer.job.state


def again(watch: Watch, *, reason: str = "") -> Requeued:
    """Requeue a running or ended job under the same id, and wait until that is in its record.

    A running job's ranks are asked for a checkpoint first, as before any end; its supervisor then takes Slurm's hold of
    121 s away. For an ended job that is done here. It costs no budget.

    Raises UsageError as `refuse_unless_requeueable`, SlurmError when Slurm refuses.
    """
    state = refuse_unless_requeueable(watch)
    events = watch.events()
    attempt = max((event.attempt for event in events), default=0)
    ended = watch.end()
    intent.drop(watch.run_dir, intent.CANCEL)
    intent.leave(watch.run_dir, intent.REQUEUE, reason=reason, attempt=attempt)
    dead = {node for event in events if event.attempt == attempt for node in event.dead}
    order = requeue.Order(job_id=_number(watch), restarts=attempt, dead=tuple(sorted(dead)))
    asked = ended is None and state == "RUNNING" and may_save(watch) and _asked(watch)
    # The supervisor lets the ranks save, and has the job requeued by itself.
    if asked and _requeued(watch, attempt, timeout_s=SAVE_PATIENCE_S):
        return Requeued(attempt=attempt, state="REQUEUED")
    requeue.put_back(watch.queue.client, order)
    watch.hurry()
    if ended is not None or state not in ("RUNNING", "COMPLETING", "SUSPENDED", "CONFIGURING"):
        _record(watch, attempt, reason)
        requeue.carry_out(watch.queue.client, order, patience_s=SAVE_PATIENCE_S)
        return Requeued(attempt=attempt, state="REQUEUED")
    done = _requeued(watch, attempt, timeout_s=SAVE_PATIENCE_S)
    return Requeued(attempt=attempt, state="REQUEUED" if done else watch.state())


def _asked(watch: Watch) -> bool:
    try:
        watch.queue.client.signal(watch.job_id, "USR2")
    except SlurmError:
        return False
    return True


def _requeued(watch: Watch, attempt: int, *, timeout_s: float) -> bool:
    """Whether the attempt is recorded as requeued within the time."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if any(event.state == "REQUEUED" and event.attempt == attempt for event in watch.events()):
            return True
        time.sleep(0.1)
    return False


def _number(watch: Watch) -> int:
    job = watch.queue.client.job(watch.job_id)
    return watch.id.job if job is None else job.job_id


def _record(watch: Watch, attempt: int, reason: str) -> None:
    """The job has no process that could: write that it lives again."""
    detail = {"requeued_by": intent.who()} | ({"reason": reason} if reason else {})
    last = watch.events()[-1] if watch.events() else None
    event = record.Event(
        epoch_s=time.time(),
        job_id=last.job_id if last else watch.id.job,
        attempt=attempt,
        cycle=last.cycle if last else 0,
        state="REQUEUED",
        cause="requeue",
        step=last.step if last else None,
        detail=detail,
    )
    try:
        record.append(watch.run_dir, event)
    except OSError:
        pass  # the next attempt's first line says the same, a little later
