"""Which ranks are slow, by the time that they do not spend waiting for others. Pure.

Time is cut into windows. In each, every rank's own time a step is held against that of all ranks of its group, by a
z-score that a slow minority cannot spoil. A rank is a straggler when it stands out in several windows on end; what is
slow together is not told apart, and where ranks do different work by nature (the stages of a pipeline), their spread
itself raises the bar.
"""

import statistics
from dataclasses import dataclass, field, replace

from trainmaster.health.robust import z_scores

RANKS_MIN = 3
"""Of two ranks nobody can say which is the slow one."""
STEPS_MIN = 5
"""Steps of every rank that a window holds at least."""
Z_MIN = 4.0
EXCESS_MIN = 0.1
"""Own time above the median, as a part of it: the smallest that published stragglers had."""
MATTERS_MIN = 0.03
"""Own time above the median, as a part of a whole step: less is not worth a spare."""
_SIGMA_FLOOR = EXCESS_MIN / Z_MIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """One rank in one window; times are seconds a step."""

    rank: int
    node: str
    own_s: float
    """Outside of collectives."""
    step_s: float
    z: float = 0.0
    excess: float = 0.0
    """Own time above the median, as a part of it."""
    slow: bool = False


@dataclass(slots=True, kw_only=True)
class _Rank:
    """What a rank has reported."""

    node: str
    steps: int
    own_s: float
    wall_s: float
    begin: tuple[int, float, float]
    """The same three where the window began."""
    streak: int = 0
    """Windows on end in which it was slow."""
    calm: int = 0
    """Windows on end in which it was not."""


def judged(paces: list[Pace]) -> tuple[Pace, ...]:
    """The ranks of one window, each with its score, and whether it is slow."""
    own = {pace.rank: pace.own_s for pace in paces}
    scores = z_scores(own, floor=_SIGMA_FLOOR)
    median = statistics.median(own.values()) if own else 0.0
    found = []
    for pace in paces:
        above_s = pace.own_s - median
        excess = above_s / median if median > 0 else 0.0
        slow = (
            len(paces) >= RANKS_MIN
            and scores[pace.rank] >= Z_MIN
            and excess >= EXCESS_MIN
            and above_s >= MATTERS_MIN * pace.step_s
        )
        found.append(replace(pace, z=round(scores[pace.rank], 2), excess=round(excess, 4), slow=slow))
    return tuple(found)


@dataclass(slots=True, kw_only=True)
class PaceWatch:
    """The windows of one group of ranks."""

    window_s: float
    windows: int
    """In how many windows on end a rank has to be slow, or no longer slow."""
    stragglers: dict[int, Pace] = field(default_factory=dict)
    """Those found, with their last window."""
    count: int = 0
    """Windows of this cycle so far."""
    _ranks: dict[int, _Rank] = field(default_factory=dict)
    _begin: float | None = None

    def restart(self) -> None:
        """A new cycle: ranks may sit elsewhere now."""
        self._ranks, self.stragglers, self._begin, self.count = {}, {}, None, 0

    def ended(self, rank: int) -> None:
        """A rank has ended."""
        self._ranks.pop(rank, None)
        self.stragglers.pop(rank, None)

    def forgive(self) -> None:
        """We were held up: what this window holds is too much in one. It begins anew."""
        self._begin = None

    def hear(self, rank: int, node: str, steps: int, own_s: float, wall_s: float) -> None:
        """Take in how many steps of a rank were timed so far, and what they took together."""
        known = self._ranks.get(rank)
        if known is None:
            begin = (steps, own_s, wall_s)
            self._ranks[rank] = _Rank(node=node, steps=steps, own_s=own_s, wall_s=wall_s, begin=begin)
        else:
            known.steps, known.own_s, known.wall_s = steps, own_s, wall_s

    def close(self, now: float) -> tuple[Pace, ...] | None:
        """The window that ends now, if one does: long enough, with enough steps of every rank."""
        ranks = self._ranks
        if len(ranks) < RANKS_MIN:
            return None
        if self._begin is None:
            self._open(now)
            return None
        if now - self._begin < self.window_s or any(one.steps - one.begin[0] < STEPS_MIN for one in ranks.values()):
            return None
        paces = judged(
            [
                Pace(
                    rank=rank,
                    node=one.node,
                    own_s=(one.own_s - one.begin[1]) / (one.steps - one.begin[0]),
                    step_s=(one.wall_s - one.begin[2]) / (one.steps - one.begin[0]),
                )
                for rank, one in sorted(ranks.items())
            ]
        )
        self.count += 1
        self._open(now)
        for pace in paces:
            self._count(ranks[pace.rank], pace)
        return paces

    def _open(self, now: float) -> None:
        self._begin = now
        for one in self._ranks.values():
            one.begin = (one.steps, one.own_s, one.wall_s)

    def _count(self, one: _Rank, pace: Pace) -> None:
        one.streak, one.calm = (one.streak + 1, 0) if pace.slow else (0, one.calm + 1)
        if one.streak >= self.windows:
            self.stragglers[pace.rank] = pace
        elif pace.rank in self.stragglers:
            if one.calm >= self.windows:
                del self.stragglers[pace.rank]
            else:
                self.stragglers[pace.rank] = pace
