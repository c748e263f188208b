"""How often a job may come back, and what that may cost others. Pure."""

from dataclasses import dataclass

from trainmaster.controller.memory import JobRecord
from trainmaster.controller.policy import Requeue

_DAY_S = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a job stands with its budgets."""

    without_progress: int
    """Ends in a row since an attempt last ran long enough to get further."""
    today: int
    blast_node_hours: float
    wait_s: float
    """Before the next start."""
    exhausted: str = ""
    """Why it may not start again; "" when it may."""


def standing(record: JobRecord, policy: Requeue, now: float) -> Standing:
    """Where a job stands. A preemption is nobody's failure, and not counted."""
    counted = [one for one in record.tries if one.cause != "preempted"]
    row = 0
    for one in reversed(counted):
        if one.ran_s >= policy.progress_s:
            break
        row += 1
    today = sum(1 for one in counted if now - one.at <= _DAY_S)
    blast = sum(hours for at, hours in record.blast if now - at <= _DAY_S)
    wait_s = policy.backoff_s[min(max(row, 1), len(policy.backoff_s)) - 1] if policy.backoff_s else 0.0
    exhausted = ""
    if row > policy.loops_max:
        exhausted = f"loop: {row} starts in a row ended within {policy.progress_s / 60:.0f} min"
    elif today > policy.per_day_max:
        exhausted = f"loop: {today} starts ended within a day"
    elif blast > policy.blast_node_hours:
        exhausted = f"blast: its starts cost other jobs {blast:.0f} node-hours within a day"
    return Standing(without_progress=row, today=today, blast_node_hours=blast, wait_s=wait_s, exhausted=exhausted)
