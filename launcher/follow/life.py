"""The life of a job as a table: one row for each cycle, with what ended it and what it cost. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from trainmaster.launcher.follow.outcome import no_rank_ran
from trainmaster.launcher.intent import NOT_BY_US
from trainmaster.launcher.record import END_STATES, Event

_NO_PART_OF_A_LIFE = frozenset({"SUBMITTED", "STRAGGLER", "SWAP", "DIAGNOSED", "DIVERGED"})
_TOLD_TO_STOP = frozenset({"CANCELLED", "TIMED_OUT", "PREEMPTED"})
"""Ends in which ranks were told to stop; how they did so is no failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleLife:
    """One start of all ranks, or an attempt that did not come so far. Moments are seconds since the epoch."""

    attempt: int
    cycle: int
    role: str = ""
    replica: int | None = None
    nodes: tuple[str, ...] = ()
    spares: tuple[str, ...] = ()
    ranks: int = 0
    dead: tuple[str, ...] = ()
    running_s: float | None = None
    """When its ranks were started."""
    first_step_s: float | None = None
    """When it reported its first step."""
    fault_s: float | None = None
    """When what ended it happened, if that was a fault."""
    ended_s: float | None = None
    state: str = "STARTING"
    """STARTING or RUNNING while it lives; RESTARTING or REQUEUED when another followed; else how the job ended."""
    cause: str | None = None
    """Why it ended."""
    step: int | None = None
    """The last step of the job by then."""
    lost_s: float | None = None
    """From the fault that ended the cycle before to the first step of this one; to the start of its ranks when they
    report no steps."""
    lost_to: str | None = None
    """The cause of the fault from which `lost_s` counts."""
    failure: dict[str, Any] = field(default_factory=dict)
    """The rank that failed first."""
    detail: dict[str, Any] = field(default_factory=dict)
    """What else the record says of its end: who cancelled it, what Slurm said."""
    then: str = ""
    """How the job ended while it waited to start again: "CANCELLED, by root"; "" when it did not."""

    @property
    def why(self) -> str:
        """What ended it, in a few words: the cause, and the rank or the person behind it."""
        words = [self.cause or ""]
        if self.failure.get("node") and self.state not in _TOLD_TO_STOP:
            how = self.failure.get("exit_code")
            how = f"exit code {how}" if how is not None else f"signal {self.failure.get('signal')}"
            rank = f"rank {self.failure.get('rank')} on {self.failure['node']}, {how}"
            words.append(f"failed: {self.failure['node']}" if no_rank_ran(self.failure) else rank)
        for key in ("cancelled_by", "requeued_by"):
            if by := _by(self.detail, key):
                words.append(f"requeued {by}" if key == "requeued_by" and self.cause != "requeue" else by)
        if self.detail.get("held"):
            words.append("held until somebody releases it")
        if self.detail.get("rule"):
            words.append(f"by your rule {self.detail['rule']!r}")
        if self.detail.get("slow_texts"):
            words.append(f"looking for {self.detail['slow_texts']} took too long")
        if self.detail.get("reason"):
            words.append(f"{self.detail['reason']!r}")
        if self.then:
            words.append(f"then {self.then}")
        return ", ".join(filter(None, words))


def _by(detail: Mapping[str, Any], key: str) -> str:
    who = detail.get(key)
    return f"by {who}" if who not in (None, NOT_BY_US) else who or ""


def cycles_of(events: Sequence[Event]) -> tuple[CycleLife, ...]:
    """The rows of a job's record, in the order in which they happened; of a job of roles, role after role."""
    lives = dict.fromkeys((event.role, event.replica) for event in events if event.role)
    if not lives:
        return _cycles_of_one(events)
    return tuple(
        replace(row, role=role, replica=replica)
        for role, replica in lives
        for row in _cycles_of_one(_as_seen_by(role, replica, events))
    )


def _as_seen_by(role: str, replica: int | None, events: Sequence[Event]) -> Iterator[Event]:
    """The events of one role, or one replica of it, and those that end or restart the whole job."""
    now: tuple[int, int] | None = None
    over = False
    for event in events:
        whole = event.role == "" or event.state == "REQUEUED" or event.ends
        if (event.role, event.replica) == (role, replica):
            now, over = (event.attempt, event.cycle), event.state == "FINISHED"
            yield event
        elif event.state == "STARTING":
            now, over = (event.attempt, 0), False
            yield replace(event, ranks=0)
        elif whole and not over and now is not None:
            cause = f"{event.role}: {event.cause}" if event.role else event.cause
            detail = {key: value for key, value in event.detail.items() if key != "failure"}
            yield replace(
                event, cycle=now[1], cause=cause, nodes=(), spares=(), dead=(), ranks=0, step=None, detail=detail
            )


def _cycles_of_one(events: Iterable[Event]) -> tuple[CycleLife, ...]:
    rows: list[CycleLife] = []
    for event in events:
        if event.state in _NO_PART_OF_A_LIFE:
            continue
        if event.state == "REQUEUED" and rows and rows[-1].state in END_STATES:
            # Somebody wanted more of a job that had ended.
            rows[-1] = replace(rows[-1], detail=rows[-1].detail | _told(event))
            continue
        if event.ends and rows and rows[-1].ended_s is not None and _is_of(event, rows[-1]):
            # It waited to start again, and that never came: no cycle of its own.
            rows[-1] = replace(rows[-1], then=", ".join(filter(None, (event.state, _by(event.detail, "cancelled_by")))))
            continue
        if not rows or rows[-1].ended_s is not None or not _is_of(event, rows[-1]):
            rows.append(CycleLife(attempt=event.attempt, cycle=event.cycle))
        rows[-1] = _with(rows[-1], event)
    return tuple(_with_losses(rows))


def _is_of(event: Event, row: CycleLife) -> bool:
    return (event.attempt, event.cycle) == (row.attempt, row.cycle)


def _with(row: CycleLife, event: Event) -> CycleLife:
    row = replace(
        row,
        nodes=event.nodes or row.nodes,
        spares=event.spares if event.state == "RUNNING" else row.spares,
        ranks=event.ranks or row.ranks,
        dead=tuple(dict.fromkeys((*row.dead, *event.dead))),
        step=row.step if event.step is None else event.step,
    )
    if event.state == "RUNNING":
        return replace(row, running_s=event.epoch_s, state="RUNNING")
    if event.state == "PROGRESS":
        return replace(row, first_step_s=float(event.detail.get("first_step_epoch_s") or event.epoch_s))
    if event.state in ("RESTARTING", "REQUEUED", "FINISHED") or event.ends:
        well = event.state in ("SUCCEEDED", "FINISHED")
        failure = event.detail.get("failure")
        return replace(
            row,
            ended_s=event.epoch_s,
            fault_s=None if well else float(event.detail.get("fault_epoch_s") or event.epoch_s),
            state=event.state,
            cause=event.cause,
            failure=failure if isinstance(failure, dict) else {},
            detail=_told(event),
        )
    return row


_TOLD_OF_AN_END = (
    "why",
    "rule",
    "slow_texts",
    "suspect",
    "held",
    "cancelled_by",
    "requeued_by",
    "reason",
    "slurm_state",
    "slurm_reason",
    "excluded",
)


def _told(event: Event) -> dict[str, Any]:
    return {key: event.detail[key] for key in _TOLD_OF_AN_END if key in event.detail}


def _with_losses(rows: Sequence[CycleLife]) -> list[CycleLife]:
    steps_known = any(row.first_step_s is not None for row in rows)
    told = []
    fault_s: float | None = None
    cause: str | None = None
    for row in rows:
        back_s = row.first_step_s if steps_known else row.running_s
        lost_s = None
        if fault_s is not None and back_s is not None:
            lost_s = max(0.0, back_s - fault_s)
            fault_s = None
        told.append(replace(row, lost_s=lost_s, lost_to=cause if lost_s is not None else None))
        # A cycle that breaks before its first step prolongs the interruption that it was to end.
        if row.state in ("RESTARTING", "REQUEUED") and fault_s is None:
            fault_s, cause = row.fault_s, row.cause
    return told


def lost_by_cause(rows: Sequence[CycleLife]) -> dict[str, float]:
    """Seconds that the job lost, by the cause of the fault, the dearest first."""
    lost: dict[str, float] = {}
    for row in _dearest(rows):
        if row.lost_s is not None:
            cause = row.lost_to or "unknown"
            lost[cause] = lost.get(cause, 0.0) + row.lost_s
    return dict(sorted(lost.items(), key=lambda item: -item[1]))


def lost_s(rows: Sequence[CycleLife]) -> float:
    """Seconds that the job lost to faults, all together; of a job of roles, what the one lost that lost most."""
    return sum(row.lost_s for row in _dearest(rows) if row.lost_s is not None)


def _dearest(rows: Sequence[CycleLife]) -> list[CycleLife]:
    """The rows of the role, or replica, that lost most: roles that are put back together lose the same seconds."""
    lives: dict[tuple[str, int | None], list[CycleLife]] = {}
    for row in rows:
        lives.setdefault((row.role, row.replica), []).append(row)
    return max(lives.values(), key=lambda life: sum(row.lost_s or 0.0 for row in life), default=[])
