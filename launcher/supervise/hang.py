"""Whether ranks hang: no step for longer than this program's own past makes credible. Pure.

Time is the supervisor's own: when it heard that something had moved. Clocks of nodes differ, and a node that is silent
altogether is another matter (`links`).
"""

import statistics
from collections import deque
from dataclasses import dataclass, field

STEPS_FACTOR = 20.0
"""A step may take so many times the median step."""
GAP_FACTOR = 3.0
"""Or so many times the longest pause between steps, and a section so many times its longest, that was seen before."""
FLOOR_S = 1800.0
"""Least time for a program that does not say when it evaluates or saves, and for each section: what torch gives a gloo
collective by default, so a program that may pause for longer has had to say so already."""
FLOOR_IN_LOOP_S = 600.0
"""Least time outside of sections for a program that names them: it may still write its last results there."""
_STEPS_KEPT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Hang:
    """Ranks that do not move."""

    ranks: tuple[int, ...]
    """Those whose last step is the earliest: the others wait for them, or all wait for each other."""
    still_s: float
    """How long nothing has moved there."""
    limit_s: float
    section: str
    """The section that the first of them is in; empty in the training loop."""
    how: str = ""
    """What was missed, where it is not steps."""

    def __str__(self) -> str:
        if self.how:
            return f"{self.how} for {self.still_s:.1f} s, where {self.limit_s:.1f} s are allowed"
        where = f"in section {self.section!r}" if self.section else "between steps"
        return f"no progress for {self.still_s:.1f} s {where}, where {self.limit_s:.1f} s are credible"


@dataclass(slots=True)
class _Rank:
    """What is known of one rank in this cycle."""

    step: int
    moved: float
    """When the supervisor heard of that step or of a change of section."""
    section: str = ""
    sections: bool = False


@dataclass(slots=True, kw_only=True)
class HangWatch:
    """What one group of ranks has taught us, over all its cycles, and where its ranks are."""

    floor_s: float | None = None
    """The user's own least time, for steps and sections alike; None for ours."""
    _step_s: deque[float] = field(default_factory=lambda: deque(maxlen=_STEPS_KEPT))
    _longest_gap_s: float = 0.0
    _longest_section_s: dict[str, float] = field(default_factory=dict)
    _ranks: dict[int, _Rank] = field(default_factory=dict)

    def restart(self) -> None:
        """A new cycle: nobody has reported yet. What was learnt stays."""
        self._ranks = {}

    def forgive(self, gap_s: float) -> None:
        """We ourselves heard nothing for a while."""
        for rank in self._ranks.values():
            rank.moved += gap_s

    def ended(self, rank: int) -> None:
        """A rank has ended, so it owes no more steps."""
        self._ranks.pop(rank, None)

    def hear(self, rank: int, step: int, section: str, sections: bool, now: float) -> None:
        """Take in where a rank is. Before its first step a rank is not watched: it may compile for an hour."""
        known = self._ranks.get(rank)
        if known is None:
            self._ranks[rank] = _Rank(step=step, moved=now, section=section, sections=sections)
            return
        known.sections = sections
        if step == known.step and section == known.section:
            return
        passed_s = now - known.moved
        if known.section:
            # Reports come once a second, so a section may last that much longer than it looks.
            seen_s = self._longest_section_s.get(known.section, 0.0)
            self._longest_section_s[known.section] = max(seen_s, passed_s)
        elif step > known.step:
            self._step_s.append(passed_s / (step - known.step))
            # One step at a time shows pauses as they are; several together share the time.
            self._longest_gap_s = max(self._longest_gap_s, passed_s / (step - known.step))
        known.step, known.section, known.moved = step, section, now

    def limit_s(self, section: str, *, sections: bool) -> float:
        """How long a rank may stay where it is: in `section`, or between steps."""
        if section:
            floor_s = FLOOR_S if self.floor_s is None else self.floor_s
            return max(floor_s, GAP_FACTOR * self._longest_section_s.get(section, 0.0))
        own_s = FLOOR_IN_LOOP_S if sections else FLOOR_S
        floor_s = own_s if self.floor_s is None else self.floor_s
        return max(floor_s, STEPS_FACTOR * self.step_s, GAP_FACTOR * self._longest_gap_s)

    @property
    def furthest(self) -> int:
        """The last step that any rank of this cycle has reported; -1 before the first."""
        return max((rank.step for rank in self._ranks.values()), default=-1)

    @property
    def step_s(self) -> float:
        """The median step; 0 before two were seen."""
        return statistics.median(self._step_s) if self._step_s else 0.0

    def verdict(self, now: float) -> Hang | None:
        """The hang, if a rank has been still for longer than credible."""
        over = []
        for rank in self._ranks.values():
            limit_s = self.limit_s(rank.section, sections=rank.sections)
            if now - rank.moved > limit_s:
                over.append((rank, limit_s))
        if not over:
            return None
        first = min((rank for rank, _ in over), key=lambda rank: (rank.step, rank.moved))
        behind = tuple(sorted(number for number, rank in self._ranks.items() if rank.step == first.step))
        limit_s = next(limit_s for rank, limit_s in over if rank is first)
        return Hang(ranks=behind, still_s=now - first.moved, limit_s=limit_s, section=first.section)
