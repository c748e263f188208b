"""Which faults strike a run and when, drawn from a seed; and what share of its time was of use. Pure."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from measure.steps import Step

MIX: Mapping[str, float] = {"rank_crash": 0.70, "node_death": 0.08, "node_freeze": 0.12, "hang": 0.10}
"""Shares of the faults of large jobs. GPU crashes (62 %) and software (8 %) both look like a rank that dies; nodes go
down (8 %); the network fails, and nobody hears a node (12 %); ranks hang (10 %). After Llama 3 (arXiv 2407.21783, table
5: 419 interruptions) and ByteRobust (arXiv 2509.16293, table 1: hangs 9.9 %)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """One fault to come."""

    at_s: float
    """From the moment in which the run flows."""
    fault: str
    victim: float
    """Which of those that can be hit, as a share of their number."""


def draw(seed: int, *, length_s: float, gap_s: float) -> tuple[Strike, ...]:
    """Faults as a Poisson process: independent, on average one in `gap_s`.

    >>> draw(1, length_s=600, gap_s=60) == draw(1, length_s=600, gap_s=60)
    True
    """
    chance = random.Random(seed)
    strikes, at_s = [], 0.0
    while (at_s := at_s + chance.expovariate(1 / gap_s)) < length_s:
        (fault,) = chance.choices(list(MIX), list(MIX.values()))
        strikes.append(Strike(at_s=at_s, fault=fault, victim=chance.random()))
    return tuple(strikes)


SLOW = 3.0
"""A step may take this many times the usual before what goes beyond counts as lost: other work slows a machine down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What became of a run's time."""

    length_s: float
    new_steps: int
    """Steps that were done for the first time."""
    step_s: float
    """What a step takes while nothing disturbs."""
    useful_s: float
    """The time in which they were done."""

    @property
    def effective(self) -> float:
        """The share of the time in which steps were done for the first time."""
        return min(1.0, self.useful_s / self.length_s)

    @property
    def lost_s(self) -> float:
        """The rest: nobody had noticed yet, restarts, waiting, steps done twice."""
        return self.length_s * (1 - self.effective)


def use_of(steps: Sequence[Step], *, begin_s: float, end_s: float) -> Use:
    """The use of a run between two moments (epoch seconds), from the stamps of its steps."""
    furthest = max((entry.step for entry in steps if entry.epoch_s <= begin_s), default=-1)
    within = [entry for entry in steps if begin_s < entry.epoch_s <= end_s]
    # A pause shows in one gap; a step's usual time is the median of all.
    gaps = [later.epoch_s - earlier.epoch_s for earlier, later in pairwise(within) if later.step == earlier.step + 1]
    step_s = median(gaps) if gaps else 0.0
    new_steps, useful_s, since_s = 0, 0.0, begin_s
    for entry in within:
        if entry.step > furthest:
            new_steps += 1
            useful_s += min(entry.epoch_s - since_s, SLOW * step_s)
            furthest = entry.step
        since_s = entry.epoch_s
    return Use(length_s=end_s - begin_s, new_steps=new_steps, step_s=step_s, useful_s=useful_s)
