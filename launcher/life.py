"""The life of a job as a table: one row for each cycle, with what ended it and what it cost. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from trainmaster.launcher.record import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleLife:
    """One start of all ranks, or an attempt that did not come so far. Moments are seconds since the epoch."""

    attempt: int
    cycle: int
    nodes: tuple[str, ...] = ()
    spares: tuple[str, ...] = ()
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
    failure: dict[str, Any] = field(default_factory=dict)
    """The rank that failed first."""


def cycles_of(events: Sequence[Event]) -> tuple[CycleLife, ...]:
    """The rows of a job's record, in the order in which they happened."""
    rows: list[CycleLife] = []
    for event in events:
        if event.state == "SUBMITTED":
            continue
        if (
            not rows
            or rows[-1].ended_s is not None
            or (rows[-1].attempt, rows[-1].cycle) != (event.attempt, event.cycle)
        ):
            rows.append(CycleLife(attempt=event.attempt, cycle=event.cycle))
        rows[-1] = _with(rows[-1], event)
    return tuple(_with_losses(rows))


def _with(row: CycleLife, event: Event) -> CycleLife:
    row = replace(
        row,
        nodes=event.nodes or row.nodes,
        spares=event.spares if event.state == "RUNNING" else row.spares,
        dead=tuple(dict.fromkeys((*row.dead, *event.dead))),
        step=row.step if event.step is None else event.step,
    )
    if event.state == "RUNNING":
        return replace(row, running_s=event.epoch_s, state="RUNNING")
    if event.state == "PROGRESS":
        return replace(row, first_step_s=float(event.detail.get("first_step_epoch_s") or event.epoch_s))
    if event.state in ("RESTARTING", "REQUEUED") or event.ends:
        failure = event.detail.get("failure")
        return replace(
            row,
            ended_s=event.epoch_s,
            fault_s=None if event.state == "SUCCEEDED" else float(event.detail.get("fault_epoch_s") or event.epoch_s),
            state=event.state,
            cause=event.cause,
            failure=failure if isinstance(failure, dict) else {},
        )
    return row


def _with_losses(rows: Sequence[CycleLife]) -> list[CycleLife]:
    steps_known = any(row.first_step_s is not None for row in rows)
    told = []
    fault_s: float | None = None
    for row in rows:
        back_s = row.first_step_s if steps_known else row.running_s
        lost_s = None
        if fault_s is not None and back_s is not None:
            lost_s = max(0.0, back_s - fault_s)
            fault_s = None
        told.append(replace(row, lost_s=lost_s))
        # A cycle that breaks before its first step prolongs the interruption that it was to end.
        if row.state in ("RESTARTING", "REQUEUED") and fault_s is None:
            fault_s = row.fault_s
    return told


def lost_s(rows: Sequence[CycleLife]) -> float:
    """Seconds that the job lost to faults, all together."""
    return sum(row.lost_s for row in rows if row.lost_s is not None)
