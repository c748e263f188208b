"""How often a job may come back, and what that may cost others. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from trainmaster.controller.memory import JobRecord, Try
from trainmaster.controller.policy import Requeue

_DAY_S = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a job stands with its budgets."""

    without_progress: int
    """Ends in a row since an attempt last ran long enough to get further; see `loop`."""
    today: int
    blast_node_hours: float
    wait_s: float
    """Before the next start."""
    exhausted: str = ""
    """Why it may not start again; "" when it may."""


def loop(tries: Sequence[Try], policy: Requeue) -> int:
    """How many ends in a row speak of the job going round in circles.

    An end with a culprit does not, the first time that this node is it: a fleet of 12,500 nodes loses one in less than
    20 min, and each is another. The same node twice does, and so does an end that nothing explains.
    """
    row: list[Try] = []
    for one in reversed(tries):
        if one.ran_s >= policy.progress_s:
            break
        row.append(one)
    seen: set[str] = set()
    count = 0
    for one in reversed(row):
        count += not one.blamed or not seen.isdisjoint(one.blamed)
        seen.update(one.blamed)
    return count


def per_day(policy: Requeue, node_count: int) -> int:
    """How many ends a day are believed of a job of this size.

    >>> per_day(Requeue(), 4), per_day(Requeue(), 2048)
    (8, 48)
    """
    return policy.per_day_max + int(policy.per_day_1000_nodes * node_count / 1000.0)


def standing(record: JobRecord, policy: Requeue, now: float, *, node_count: int) -> Standing:
    """Where a job stands. A preemption or maintenance is nobody's failure, and not counted."""
    counted = [one for one in record.tries if one.cause not in ("preempted", "maintenance")]
    row = loop(counted, policy)
    today = sum(1 for one in counted if now - one.at <= _DAY_S)
    blast = sum(hours for at, hours in record.blast if now - at <= _DAY_S)
    wait_s = policy.backoff_s[min(max(row, 1), len(policy.backoff_s)) - 1] if policy.backoff_s else 0.0
    most = per_day(policy, node_count)
    exhausted = ""
    if row > policy.loops_max:
        exhausted = f"loop: {row} starts in a row ended within {policy.progress_s / 60:.0f} min"
    elif today > most:
        exhausted = f"loop: {today} starts ended within a day, {most} are believed"
    elif blast > policy.blast_node_hours:
        exhausted = f"blast: its starts cost other jobs {blast:.0f} node-hours within a day"
    return Standing(without_progress=row, today=today, blast_node_hours=blast, wait_s=wait_s, exhausted=exhausted)
