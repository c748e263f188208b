"""The life of a job run as spans that follow each other without gap or overlap. Pure.

Whatever accounting says (ends before starts, attempts that overlap, clocks that jumped), a cursor only moves forward
and every stretch that it passes gets a phase. So the parts always add up to the whole.
"""

from collections.abc import Sequence

from trainmaster.report import phases
from trainmaster.report.attribution import Attribution
from trainmaster.report.phases import Assumptions, Phase, Span
from trainmaster.report.runs import Run
from trainmaster.slurm.accounting import Row


class Cursor:
    """Where the life of a run has been told up to. Milliseconds since the epoch."""

    def __init__(self, begin_ms: int, limit_ms: int) -> None:
        self.at_ms, self.limit_ms = begin_ms, limit_ms
        self.spans: list[Span] = []

    def to(self, until_ms: int, phase: Phase, weight: int, cause: str = "") -> None:
        """Give what lies between here and `until_ms` a phase; nothing when that is not ahead."""
        until_ms = min(until_ms, self.limit_ms)
        if until_ms <= self.at_ms:
            return
        if cause == phases.MAINTAINED and phase is not Phase.PRODUCTIVE:
            phase = Phase.MAINTENANCE
        elif cause in phases.OWN and phase is not Phase.PRODUCTIVE:
            phase = Phase.USER
        self.spans.append(Span(self.at_ms, until_ms, phase, cause, weight))
        self.at_ms = until_ms


def weight_of(attempt: Row, by: str) -> int:
    """What an attempt's time counts: its GPUs or its nodes."""
    return attempt.gpus if by == "gpus" else max(1, attempt.nodes)


def begin_ms(run: Run, until_s: int) -> int:
    """When the life of a run begins: when its first attempt could have started."""
    first = run[0]
    known = next((one for one in (first.eligible_s, first.submit_s, first.start_s) if one is not None), until_s)
    if first.start_s is not None and known > first.start_s:
        known = first.start_s  # eligible later than started: the clock was set
    return min(known, until_s) * 1000


def spans(
    run: Run, attribution: Attribution, assumptions: Assumptions, *, until_s: int, by: str
) -> tuple[list[Span], list[str]]:
    """The spans of a run, and why each of its attempts ended.

    Args:
        run: its attempts.
        attribution: what is known of nodes.
        assumptions: what accounting does not tell.
        until_s: the end of the report; what has not ended then goes on till then. Epoch seconds.
        by: gpus or nodes.
    """
    cursor = Cursor(begin_ms(run, until_s), until_s * 1000)
    causes: list[str] = []
    interrupted = ""
    started_once = False
    for number, attempt in enumerate(run):
        weight = weight_of(attempt, by)
        if attempt.start_s is None:
            _waits(cursor, attempt, weight, interrupted, started_once, until_s)
            continue
        continues = bool(causes) and causes[-1] == phases.RESIZED and attempt.submit_s == run[0].submit_s
        begun_ms = min(attempt.start_s, until_s) * 1000
        cursor.to(begun_ms, Phase.WAIT if started_once else Phase.QUEUE, weight, interrupted)
        end_s, cause = _end(attempt, run[number + 1] if number + 1 < len(run) else None, attribution, until_s)
        causes.append(cause)
        restart = Phase.RESTART if started_once else Phase.START
        init_s = 0.0 if continues else assumptions.init_s
        _runs(cursor, attempt, end_s * 1000, init_s, restart, interrupted, cause, weight, assumptions)
        started_once = True
        interrupted = "" if cause in phases.GOES_ON else cause
    return cursor.spans, causes


def _end(attempt: Row, following: Row | None, attribution: Attribution, until_s: int) -> tuple[int, str]:
    """When an attempt ended, and why."""
    if attempt.end_s is None:
        if following is None:
            return until_s, phases.RUNNING
        # slurmctld has lost its end; it was over when the next one came into the queue.
        known = following.submit_s if following.submit_s is not None else following.start_s
        return min(until_s, known if known is not None else until_s), phases.UNKNOWN
    if attempt.end_s > until_s:
        return until_s, phases.RUNNING
    return attempt.end_s, attribution.cause(attempt)


def _waits(cursor: Cursor, attempt: Row, weight: int, interrupted: str, started_once: bool, until_s: int) -> None:
    """An attempt that never started: it waits still, or was cancelled meanwhile."""
    until_ms = (until_s if attempt.end_s is None else min(attempt.end_s, until_s)) * 1000
    if started_once:
        cursor.to(until_ms, Phase.WAIT, weight, interrupted)
    else:
        cursor.to(until_ms, Phase.NEVER, weight)


def _runs(
    cursor: Cursor,
    attempt: Row,
    end_ms: int,
    init_s: float,
    restart: Phase,
    interrupted: str,
    cause: str,
    weight: int,
    assumptions: Assumptions,
) -> None:
    """The inside of an attempt, by what is assumed."""
    begun_ms = cursor.at_ms
    cursor.to(min(end_ms, begun_ms + round(init_s * 1000)), restart, weight, interrupted)
    # When it was suspended is not told; somewhere in the middle.
    cursor.to(min(end_ms, cursor.at_ms + attempt.suspended_s * 1000), Phase.SUSPENDED, weight)
    if cause in phases.GOES_ON:
        cursor.to(end_ms, Phase.PRODUCTIVE, weight)
        return
    unseen_ms = round(assumptions.unseen_s * 1000) if cause == phases.NODE else 0
    worked_ms = max(0, end_ms - cursor.at_ms - unseen_ms)
    interval_ms = max(1, round(assumptions.interval_s * 1000))
    cursor.to(cursor.at_ms + worked_ms - worked_ms % interval_ms, Phase.PRODUCTIVE, weight)
    cursor.to(cursor.at_ms + worked_ms % interval_ms, Phase.REDONE, weight, cause)
    cursor.to(end_ms, Phase.UNSEEN, weight, cause)


def clipped(spans: Sequence[Span], since_ms: int, until_ms: int) -> list[Span]:
    """What of the spans lies between two moments."""
    if not spans or (spans[0].begin_ms >= since_ms and spans[-1].end_ms <= until_ms):
        return list(spans)
    cut = (one._replace(begin_ms=max(one.begin_ms, since_ms), end_ms=min(one.end_ms, until_ms)) for one in spans)
    return [one for one in cut if one.end_ms > one.begin_ms]
