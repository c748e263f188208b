"""The same spans from a job's own record (`attempts.jsonl`), which knows what accounting cannot. Pure.

It knows when the first step came, when the fault happened and was found, and what had been saved.
Where there is accounting as well, that says when the job could have started and when it did.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainmaster.launcher.record import END_STATES, Event, end_of
from trainmaster.report import phases
from trainmaster.report.phases import Assumptions, Phase, Span
from trainmaster.report.runs import Run
from trainmaster.report.timeline import Cursor, begin_ms, weight_of

_CAUSES: Mapping[str, str] = {
    "node_death": phases.NODE,
    "node_failure": phases.NODE,
    "node_stuck": phases.NODE,
    "node_silent": phases.NODE,
    "supervisor_death": phases.NODE,
    "start": phases.NODE,
    "node_fault": phases.CHECK,
    "exclude_node": phases.CHECK,
    "exchange": phases.CHECK,
    "straggler": phases.CHECK,
    "hang": phases.HANG,
    "rank_crash": phases.CRASH,
    "disk_full": phases.CRASH,
    "port_taken": phases.CRASH,
    "program": phases.FAILED,
    "preemption": phases.PREEMPTED,
    "timeout": phases.TIME_LIMIT,
    "requeue": phases.REQUEUED,
    "requested": phases.REQUEUED,
    "maintenance": phases.MAINTAINED,
    "user": phases.CANCELLED,
    "out_of_memory": phases.MEMORY,
    "diverged": phases.FAILED,
    "never_requeue": phases.FAILED,
    "not_ready": phases.FAILED,
}
_ENDS: Mapping[str, str] = {
    "SUCCEEDED": phases.COMPLETED,
    "TIMED_OUT": phases.TIME_LIMIT,
    "CANCELLED": phases.CANCELLED,
    "PREEMPTED": phases.PREEMPTED,
    "OUT_OF_MEMORY": phases.MEMORY,
    "FAILED_USER": phases.FAILED,
    "NO_PROGRESS": phases.FAILED,
    "FAILED_INFRA": phases.NODE,
    "LOST": phases.UNKNOWN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What a record says of a job's time."""

    spans: tuple[Span, ...]
    causes: tuple[str, ...]
    """Of every cycle that ended."""
    assumed: int = 0
    """Interruptions of which it does not tell what had been saved, so that the assumed interval was used."""


def cause_of(event: Event) -> str:
    """Why a cycle ended, in the report's words."""
    if event.state in _ENDS and event.state != "FAILED_INFRA":
        return _ENDS[event.state]
    failure = event.detail.get("failure")
    told = failure.get("traceback") if isinstance(failure, Mapping) else None
    if event.cause == "rank_crash" and told:
        return phases.FAILED  # an exception of the program's own
    return _CAUSES.get(event.cause or "", _ENDS.get(event.state, event.cause or phases.UNKNOWN))


def usable(events: Sequence[Event]) -> bool:
    """Whether the record is of one life: roles have a life each, and accounting has them apart as well."""
    return any(event.state == "STARTING" for event in events) and not any(event.role for event in events)


def spans(
    events: Sequence[Event], run: Run, assumptions: Assumptions, *, until_s: int, by: str, weight: int
) -> Recorded:
    """The spans of a job.

    Args:
        events: its record, `usable`.
        run: its attempts as accounting has them; empty where there is none.
        assumptions: for what the record leaves open.
        until_s: the end of the report, epoch seconds.
        by: gpus or nodes.
        weight: what the job counts where accounting does not say.
    """
    until_ms = until_s * 1000
    weight = weight_of(run[0], by) if run else weight
    # Accounting counts whole seconds, so the job is over there up to one before the record says so.
    end_s = run[-1].end_s if run and end_of(events) is not None else None
    limit_ms = until_ms if end_s is None else min(until_ms, end_s * 1000)
    cursor = Cursor(begin_ms(run, until_s) if run else min(until_ms, _ms(events[0].epoch_s)), limit_ms)
    story = _Story(cursor, run, assumptions, until_ms, weight)
    for event in events:
        if _ms(event.epoch_s) > until_ms:
            break
        story.take(event)
    story.close()
    return Recorded(spans=tuple(cursor.spans), causes=tuple(story.causes), assumed=story.assumed)


def _ms(epoch_s: float) -> int:
    return round(epoch_s * 1000)


class _Story:
    """Reads the events in their order, and lays spans behind them."""

    def __init__(self, cursor: Cursor, run: Run, assumptions: Assumptions, until_ms: int, weight: int) -> None:
        self._cursor, self._run, self._assumptions = cursor, run, assumptions
        self._until_ms, self._weight = until_ms, weight
        self.causes: list[str] = []
        self.assumed = 0
        self._cause = ""
        """Of the interruption that is being got over."""
        self._begun = self._held = self._works = False
        """Whether it ever started; has nodes; does steps."""
        self._saved = -1

    def take(self, event: Event) -> None:
        """One event."""
        at_ms = _ms(event.epoch_s)
        if event.state == "STARTING":
            self._start(event, at_ms)
        elif event.state == "RUNNING":
            if not self._held:
                self._start(event, at_ms)
            self._to(at_ms, Phase.RESTART if self._begun else Phase.START)
            self._works = True
        elif event.state == "PROGRESS":
            first_ms = _ms(float(event.detail.get("first_step_epoch_s") or event.epoch_s))
            self._unwork(first_ms)
        elif event.state in ("RESTARTING", "REQUEUED") or event.state in END_STATES:
            self._end(event, at_ms)

    def close(self) -> None:
        """What lies between the last event and the end of the job or of the report."""
        last = self._run[-1] if self._run else None
        over = bool(self.causes) and not self._held and self._cause in ("", *phases.OWN)
        if last is not None and last.start_s is not None and last.end_s is not None:
            # Accounting has the end: what came after the record's own is Slurm's clearing up.
            end_ms = min(self._until_ms, last.end_s * 1000)
            if self._works:
                self._cursor.to(end_ms, Phase.PRODUCTIVE, self._weight)
            else:
                self._to(end_ms, Phase.RESTART if self._begun and self._cause else Phase.START)
        elif self._works:
            self._cursor.to(self._until_ms, Phase.PRODUCTIVE, self._weight)
        elif self._held:
            self._to(self._until_ms, Phase.RESTART if self._begun else Phase.START)
        elif not self._begun:
            self._cursor.to(self._until_ms, Phase.NEVER, self._weight)
        elif not over and self._cause:
            self._to(self._until_ms, Phase.WAIT)

    def _start(self, event: Event, at_ms: int) -> None:
        if self._held:
            return
        # In the middle of accounting's attempt the batch script is a second old already.
        starts = [row.start_s * 1000 for row in self._run if row.start_s is not None]
        near = [one for one in starts if self._cursor.at_ms <= one <= at_ms]
        self._cursor.to(max(near, default=at_ms), Phase.WAIT if self._begun else Phase.QUEUE, self._weight, self._cause)
        self._held = True

    def _unwork(self, first_ms: int) -> None:
        """The first step came only now: the time since the ranks were started was none of work."""
        self._to(first_ms, Phase.RESTART if self._begun else Phase.START)
        self._begun, self._works = True, True

    def _end(self, event: Event, at_ms: int) -> None:
        cause = cause_of(event)
        if not self._held:
            # Cancelled, or requeued again, while it waited.
            self._to(at_ms, Phase.WAIT) if self._begun else self._cursor.to(at_ms, Phase.NEVER, self._weight)
            return
        self.causes.append(cause)
        self._begun = True
        if cause == phases.COMPLETED:
            self._cursor.to(at_ms, Phase.PRODUCTIVE, self._weight)
            self._held, self._works, self._cause = False, False, ""
            return
        if self._works:
            self._lose(event, at_ms, cause)
        else:
            # It broke before its first step, which prolongs the interruption that it was to end.
            self._cursor.to(at_ms, Phase.RESTART, self._weight, self._cause or cause)
        self._cause = cause
        self._works = False
        self._held = event.state == "RESTARTING"
        if event.state == "REQUEUED":
            self._clear_up(at_ms)

    def _clear_up(self, at_ms: int) -> None:
        ends = [row.end_s * 1000 for row in self._run if row.end_s is not None]
        near = [one for one in ends if at_ms <= one]
        if near:
            self._to(min(near), Phase.RESTART)

    def _lose(self, event: Event, at_ms: int, cause: str) -> None:
        """Work up to a fault: what was kept, what is done again, and how long nobody noticed."""
        fault_ms = _ms(float(event.detail.get("fault_epoch_s") or event.epoch_s))
        hang = event.detail.get("hang")
        if isinstance(hang, Mapping) and hang.get("still_s"):
            fault_ms = min(fault_ms, at_ms - _ms(float(hang["still_s"])))
        fault_ms = min(max(fault_ms, self._cursor.at_ms), at_ms)
        worked_ms = fault_ms - self._cursor.at_ms
        lost_ms = self._lost_ms(event, worked_ms)
        self._cursor.to(fault_ms - lost_ms, Phase.PRODUCTIVE, self._weight)
        self._cursor.to(fault_ms, Phase.REDONE, self._weight, cause)
        self._cursor.to(at_ms, Phase.UNSEEN, self._weight, cause)

    def _lost_ms(self, event: Event, worked_ms: int) -> int:
        """Of the cycle's work, what came after its last checkpoint; steps are taken to be equally long."""
        saved = event.detail.get("saved")
        if isinstance(saved, int) and event.step is not None:
            before, self._saved = self._saved, max(saved, self._saved)
            done = event.step - before
            return min(worked_ms, worked_ms * max(0, event.step - saved) // done) if done > 0 else worked_ms
        if event.cause == "requested":
            return 0  # ended with 75: its checkpoint is written
        self.assumed += 1
        return worked_ms % max(1, round(self._assumptions.interval_s * 1000))

    def _to(self, until_ms: int, phase: Phase) -> None:
        self._cursor.to(until_ms, phase, self._weight, self._cause)
