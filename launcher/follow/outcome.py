"""What a job's record and Slurm say together: its state, its end, and the words for it. Pure."""

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainmaster.launcher import record
from trainmaster.launcher.intent import NOT_BY_US, Intent
from trainmaster.launcher.record import Event
from trainmaster.slurm.values import Job

# Events that change the job's state, and to what. Others, such as NODE_LOST, tell why the next one came.
_STATE_OF = {
    "SUBMITTED": "PENDING",
    "STARTING": "STARTING",
    "RUNNING": "RUNNING",
    "PROGRESS": "RUNNING",
    "RESTARTING": "RESTARTING",
    "REQUEUED": "REQUEUED",
}


UNLISTED_MAX_S = 600.0
"""How long a job that is in no queue may be about to enter or to leave it."""
NOT_LISTED_YET_S = 30.0
"""How long a new job may be missing since the queue was listed before: that is shared for 15 s, and squeue is slow."""


def state_of(events: Sequence[Event], queued: Job | None = None, *, cancelled: Intent | None = None) -> str:
    """The job's state in one word: how it ended, else what it does now.

    Args:
        events: The record.
        queued: The job as squeue shows it, if it was asked.
        cancelled: The word that somebody has left who cancels it.
    """
    end = record.end_of(events)
    if end is not None:
        return end.state
    if cancelled is not None:
        return "CANCELLING"
    state = next((_STATE_OF[event.state] for event in reversed(events) if event.state in _STATE_OF), "PENDING")
    if queued is not None and state in ("PENDING", "REQUEUED") and queued.state in ("RUNNING", "CONFIGURING"):
        return "STARTING"
    return state


def state_unlisted(events: Sequence[Event], *, cancelled: Intent | None, now_s: float) -> str:
    """The state of a job that is not in the queue though its record has no end.

    That is so for a moment when it is submitted, when somebody cancels it, and while it is requeued; else only a closer
    look can tell.
    """
    end = record.end_of(events)
    if end is not None:
        return end.state
    if cancelled is not None and now_s - cancelled.time < UNLISTED_MAX_S:
        return "CANCELLING"
    last = events[-1] if events else None
    if last is not None and last.state == "SUBMITTED" and now_s - last.epoch_s < NOT_LISTED_YET_S:
        return "PENDING"
    requeued = last is not None and last.state == "REQUEUED" and now_s - last.epoch_s < UNLISTED_MAX_S
    return "REQUEUED" if requeued else "UNKNOWN"


def reason_of(queued: Job | None) -> str:
    """Why Slurm has not started a job; "" when it does not wait or squeue gives no reason."""
    return queued.reason if queued is not None and queued.state == "PENDING" and queued.reason != "None" else ""


# Slurm's end states -> ours and the cause, for a job whose own processes could not say.
_ENDED = {
    "CANCELLED": ("CANCELLED", "user"),
    "TIMEOUT": ("TIMED_OUT", "timeout"),
    "DEADLINE": ("TIMED_OUT", "timeout"),
    "PREEMPTED": ("PREEMPTED", "preemption"),
    "NODE_FAIL": ("FAILED_INFRA", "node_failure"),
    "BOOT_FAIL": ("FAILED_INFRA", "node_failure"),
    "OUT_OF_MEMORY": ("OUT_OF_MEMORY", "supervisor_death"),
    "FAILED": ("FAILED_INFRA", "supervisor_death"),
}


def end_by_evidence(
    events: Sequence[Event],
    job: Job | None,
    *,
    job_id: int | str,
    cancelled: Intent | None,
    cancelled_by: str | None = None,
    now_s: float,
) -> Event:
    """The end of a job that wrote none itself. Pure.

    Args:
        events: The record.
        job: What `scontrol show job` says; None when Slurm has forgotten the job.
        job_id: The job.
        cancelled: Who used `trainmaster jobs cancel`, if anybody did.
        cancelled_by: Who cancelled it by the cluster's accounts, if they tell.
        now_s: Seconds since the epoch.
    """
    state, cause = _ENDED.get(job.state, ("LOST", None)) if job is not None else ("LOST", None)
    if state == "LOST" and cancelled is not None:
        state, cause = "CANCELLED", "user"
    last = events[-1] if events else None
    detail: dict[str, object] = {"by": "watcher", "slurm_state": job.state if job is not None else "unknown"}
    if job is not None:
        detail |= {"slurm_reason": job.reason, "slurm_exit_code": job.exit_code}
    if state == "CANCELLED":
        detail["cancelled_by"] = cancelled_by or (cancelled.by if cancelled is not None else NOT_BY_US)
    return Event(
        epoch_s=(job.end_time if job is not None else None) or now_s,
        job_id=last.job_id if last else job_id,
        attempt=last.attempt if last else 0,
        cycle=last.cycle if last else 0,
        state=state,
        cause=cause,
        nodes=last.nodes if last else (),
        ranks=last.ranks if last else 0,
        step=last.step if last else None,
        detail=detail,
    )


def failure_of(event: Event) -> dict[str, object]:
    """The rank that failed first, when a rank's failure is why; one that was told to stop has not failed."""
    failure = event.detail.get("failure")
    told_to_stop = event.state in ("CANCELLED", "TIMED_OUT", "PREEMPTED")
    return failure if isinstance(failure, dict) and not told_to_stop else {}


def signal_name(number: object) -> str:
    """The name of a signal, for people.

    >>> signal_name(11), signal_name(99)
    ('SIGSEGV', 'signal 99')
    """
    try:
        return signal.Signals(int(str(number))).name
    except ValueError:
        return f"signal {number}"


def no_rank_ran(failure: Mapping[str, object]) -> bool:
    """Whether what failed is the start: there is no rank to be blamed, and the exit code is our own."""
    rank = failure.get("rank")
    return isinstance(rank, int) and rank < 0


def explain(end: Event, *, name: str, log: Path, log_end: str, show_told: bool = False) -> str:
    """How a job ended and, when not well, what failed first and where to read on.

    Args:
        end: The event that ended the job.
        name: The job's name.
        log: What the batch step wrote.
        log_end: The end of it.
        show_told: The reader has what `jobs show` prints before him.
    """
    by = end.detail.get("cancelled_by")
    cause = f" ({end.cause}{f', by {by}' if by else ''})" if end.cause and end.cause != "program" else ""
    lines = [f"job {end.job_id} {name!r} ended {end.state}{cause} in attempt {end.attempt}, cycle {end.cycle}"]
    lines += dict.fromkeys(str(end.detail[key]) for key in ("why", "diverged", "suspect") if end.detail.get(key))
    if end.detail.get("rule"):
        lines.append(f"your rule: {end.detail['rule']}")
    if end.detail.get("slow_texts"):
        lines.append(f"looking for {end.detail['slow_texts']} took too long; rules with it counted as not fitting")
    failure = failure_of(end)
    if failure:
        how = signal_name(failure["signal"]) if failure.get("signal") else f"exit code {failure.get('exit_code')}"
        of_role = f" of role {end.role!r}" if end.role else ""
        if no_rank_ran(failure):
            missing = f"; failed: {failure['node']}" if failure.get("node") else ""
            lines.append(f"no rank{of_role} could be started{missing}")
        else:
            lines.append(f"first failing rank: {failure.get('rank')}{of_role} on {failure.get('node')}, {how}")
        if failure.get("traceback"):
            lines += ["-" * 40, str(failure["traceback"]).rstrip(), "-" * 40]
        if failure.get("log"):
            lines.append(f"its log: {failure['log']}")
    elif end.state not in ("SUCCEEDED", "CANCELLED"):
        slurm = end.detail.get("slurm_state")
        if slurm:
            lines.append(
                f"the job wrote no end itself; Slurm says {slurm}, {end.detail.get('slurm_reason') or 'no reason'}"
            )
        if log_end.strip():
            lines += [f"the end of {log}:", "-" * 40, log_end.rstrip(), "-" * 40]
    if not show_told:
        lines.append(f"the job's life: trainmaster jobs show {end.job_id}")
    return "\n".join(lines)
