"""Adds up the spans of job runs, one run at a time, in memory that does not grow with their number."""

import heapq
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from trainmaster.report import phases
from trainmaster.report.attribution import Attribution
from trainmaster.report.curve import Curve
from trainmaster.report.phases import OUTSIDE, Assumptions, Phase, Span
from trainmaster.report.runs import Run
from trainmaster.report.timeline import clipped, spans, weight_of

SIZES = (1, 8, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
"""Upper ends of the classes of job size, in GPUs or nodes."""
DEAREST = 20
"""Runs that are listed."""
_POINTS = 3000
_STEP_MIN_MS = 1000
_IN_CURVES = frozenset(Phase) - OUTSIDE
# To look a member up in its class takes as long as to add to a sum, and there are a million runs a month.
_QUEUE, _START, _PRODUCTIVE = Phase.QUEUE, Phase.START, Phase.PRODUCTIVE
_UNSEEN, _USER, _REDONE = Phase.UNSEEN, Phase.USER, Phase.REDONE


@dataclass(slots=True)
class SizeClass:
    """Jobs of about one size."""

    runs: int = 0
    running_ms: int = 0
    """Time in which they ran, each job once."""
    node_ms: int = 0
    failures: int = 0
    """Ends of attempts that count as infrastructure's."""
    productive: int = 0
    """Weighted milliseconds."""
    whole: int = 0
    """Weighted milliseconds, without what is not part of ETTR."""
    wait_ms: int = 0
    """After interruptions, each job once."""
    interruptions: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Dear:
    """A run that lost much."""

    job: str
    user: str
    partition: str
    weight: int
    attempts: int
    lost: int
    """Weighted milliseconds."""
    ettr: float
    why: str
    """What it lost most to."""


@dataclass(slots=True)
class Ledger:
    """The sums. Weighted milliseconds are GPU- or node-milliseconds, as `by` says."""

    since_ms: int
    until_ms: int
    by: str
    assumptions: Assumptions
    attribution: Attribution
    parts: dict[Phase, int] = field(default_factory=lambda: dict.fromkeys(Phase, 0))
    wall: dict[Phase, int] = field(default_factory=lambda: dict.fromkeys(Phase, 0))
    """The same, each run's milliseconds once."""
    lost: dict[str, dict[Phase, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    """By cause of the interruption, what it cost."""
    ends: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """By cause, how many attempts ended."""
    sizes: dict[int, SizeClass] = field(default_factory=dict)
    runs: int = 0
    attempts: int = 0
    recorded: int = 0
    """Runs with a record of their own."""
    dearest: list[tuple[int, int, Dear]] = field(default_factory=list)
    productive: Curve = field(init=False)
    whole: Curve = field(init=False)
    _init_ms: int = field(init=False)
    _unseen_ms: int = field(init=False)
    _interval_ms: int = field(init=False)

    def __post_init__(self) -> None:
        self._init_ms = round(self.assumptions.init_s * 1000)
        self._unseen_ms = round(self.assumptions.unseen_s * 1000)
        self._interval_ms = max(1, round(self.assumptions.interval_s * 1000))
        step_ms = max(_STEP_MIN_MS, -(-(self.until_ms - self.since_ms) // _POINTS))
        if step_ms > 60_000:
            step_ms = -(-step_ms // 600_000) * 600_000  # on a grid of whole ten minutes an hour is a whole number
        self.productive = Curve(self.since_ms, self.until_ms, step_ms)
        self.whole = Curve(self.since_ms, self.until_ms, step_ms)

    def add(self, run: Run) -> None:
        """Take in a run that only accounting tells of."""
        if len(run) == 1 and self._add_simple(run):
            return
        found, causes = spans(run, self.attribution, self.assumptions, until_s=-(-self.until_ms // 1000), by=self.by)
        self.add_spans(run, found, causes)

    def _add_simple(self, run: Run) -> bool:
        """Most runs start once and end once. The same as below, by sums alone: spans cost three times as much."""
        row = run[0]
        begin_s, start_s, end_s = row.eligible_s, row.start_s, row.end_s
        if begin_s is None or start_s is None or end_s is None or row.suspended_s:
            return False
        begin_ms, start_ms, end_ms = begin_s * 1000, start_s * 1000, end_s * 1000
        if not self.since_ms <= begin_ms <= start_ms <= end_ms <= self.until_ms:
            return False
        cause = self.attribution.cause(row)
        if cause == phases.MAINTAINED:
            return False
        weight = row.gpus if self.by == "gpus" else row.nodes or 1
        queued_ms, ran_ms = start_ms - begin_ms, end_ms - start_ms
        init_ms = min(self._init_ms, ran_ms)
        lost_ms = unseen_ms = 0
        if cause not in phases.GOES_ON:
            worked_ms = ran_ms - init_ms
            if cause == phases.NODE:
                unseen_ms = min(self._unseen_ms, worked_ms)
            lost_ms = (worked_ms - unseen_ms) % self._interval_ms
        kept_ms = ran_ms - init_ms - lost_ms - unseen_ms
        phase = _USER if cause in phases.OWN else _REDONE
        wall, parts = self.wall, self.parts
        wall[_QUEUE] += queued_ms
        wall[_START] += init_ms
        wall[_PRODUCTIVE] += kept_ms
        parts[_QUEUE] += queued_ms * weight
        parts[_START] += init_ms * weight
        parts[_PRODUCTIVE] += kept_ms * weight
        if lost_ms or unseen_ms:
            wall[phase] += lost_ms
            parts[phase] += lost_ms * weight
            wall[_UNSEEN] += unseen_ms
            parts[_UNSEEN] += unseen_ms * weight
        counted_ms = ran_ms - lost_ms if phase is _USER else ran_ms
        if weight:
            self.whole.add(begin_ms, start_ms + counted_ms, weight)
            if kept_ms:
                self.productive.add(start_ms + init_ms, start_ms + init_ms + kept_ms, weight)
        self.runs += 1
        self.attempts += 1
        self.ends[cause] += 1
        size = self._size(weight)
        size.runs += 1
        size.running_ms += ran_ms
        size.node_ms += ran_ms * row.nodes
        size.productive += kept_ms * weight
        size.whole += (queued_ms + counted_ms) * weight
        if cause in phases.GOES_ON:
            return True
        size.interruptions += 1
        size.failures += cause in phases.INFRASTRUCTURE
        mine = {(cause, phase): lost_ms * weight, (cause, _UNSEEN): unseen_ms * weight}
        lost = (lost_ms + unseen_ms) * weight
        if lost:
            for (_, where), value in mine.items():
                if value:
                    self.lost[cause][where] += value
            whole = (queued_ms + counted_ms) * weight
            self._note_dear(run, weight, 1, lost, kept_ms * weight / whole if whole else 0.0, mine)
        return True

    def _size(self, weight: int) -> SizeClass:
        key = bisect_left(SIZES, weight)
        found = self.sizes.get(key)
        if found is None:
            found = self.sizes[key] = SizeClass()
        return found

    def add_spans(self, run: Run, told: Sequence[Span], causes: Sequence[str], *, recorded: bool = False) -> None:
        """Take in a run whose spans are known."""
        life = clipped(told, self.since_ms, self.until_ms)
        self.runs += 1
        self.recorded += recorded
        self.attempts += len(causes)
        for cause in causes:
            self.ends[cause] += 1
        weight = max([weight_of(one, self.by) for one in run], default=max((one.weight for one in life), default=0))
        size = self._size(weight)
        size.runs += 1
        productive = whole = 0
        mine: dict[tuple[str, Phase], int] = {}
        for begin_ms, end_ms, phase, cause, heavy in life:
            length_ms = end_ms - begin_ms
            self.wall[phase] += length_ms
            self.parts[phase] += length_ms * heavy
            if phase in _IN_CURVES:
                whole += length_ms * heavy
                if heavy:
                    self.whole.add(begin_ms, end_ms, heavy)
                    if phase is Phase.PRODUCTIVE:
                        self.productive.add(begin_ms, end_ms, heavy)
            if phase is Phase.PRODUCTIVE:
                productive += length_ms * heavy
            elif cause:
                self.lost[cause][phase] += length_ms * heavy
                mine[cause, phase] = mine.get((cause, phase), 0) + length_ms * heavy
            if phase is Phase.WAIT:
                size.wait_ms += length_ms
        size.productive += productive
        size.whole += whole
        for attempt in run:
            if attempt.start_s is not None:
                end_ms = self.until_ms if attempt.end_s is None else min(attempt.end_s * 1000, self.until_ms)
                ran_ms = max(0, end_ms - max(attempt.start_s * 1000, self.since_ms))
                size.running_ms += ran_ms
                size.node_ms += ran_ms * attempt.nodes
        size.failures += sum(1 for cause in causes if cause in phases.INFRASTRUCTURE)
        size.interruptions += sum(1 for cause in causes if cause not in phases.GOES_ON)
        lost = sum(mine.values())
        if lost and run:
            self._note_dear(run, weight, len(causes), lost, productive / whole if whole else 0.0, mine)

    def _note_dear(
        self, run: Run, weight: int, attempts: int, lost: int, ettr: float, mine: dict[tuple[str, Phase], int]
    ) -> None:
        if len(self.dearest) >= DEAREST and lost <= self.dearest[0][0]:
            return
        cause, phase = max(mine, key=lambda key: mine[key])
        dear = Dear(
            job=run[0].shown,
            user=run[0].user,
            partition=run[0].partition,
            weight=weight,
            attempts=attempts,
            lost=lost,
            ettr=ettr,
            why=f"{cause}: {phase}",
        )
        heapq.heappush(self.dearest, (lost, self.runs, dear))
        if len(self.dearest) > DEAREST:
            heapq.heappop(self.dearest)

    @property
    def ettr(self) -> float | None:
        """Cumulative: R/W of everything, weighted; None when nothing ran or waited."""
        whole = sum(value for phase, value in self.parts.items() if phase not in OUTSIDE)
        return self.parts[Phase.PRODUCTIVE] / whole if whole else None
