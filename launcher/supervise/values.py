"""Whether reported values say that training has gone wrong: NaN or infinite, or a jump that stays. Pure.

Values come once a second with the agents' heartbeats, so this sees a sample of them. A verdict needs several samples
at different steps: one bad batch is none.
"""

import math
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

NOT_FINITE_SAMPLES = 3
"""A value has to be NaN or infinite for so many samples in a row. fp16 training skips single steps of that kind."""
JUMP_SAMPLES = 5
"""A jump has to last for so many samples in a row; a spike is over before that."""
SAMPLES_MIN = 16
"""From so few samples on a window says what is usual."""
MAD_LEAST = 0.01
"""A value that hardly moves is taken to move by this share of its median, or noise would look like a jump."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """A value that went wrong."""

    name: str
    value: float
    step: int
    rank: int | None = None
    """Whose value it is; None for the median of all ranks."""
    usual: float | None = None
    """The median of the window before a jump."""
    mads: float = 0.0
    """How many median absolute deviations above that it lies."""
    good: int = -1
    """The last step of this cycle at which it was seen to be good, on all ranks; -1 for none."""

    def __str__(self) -> str:
        if self.usual is None:
            return f"{self.name} is {self.value} on rank {self.rank} at step {self.step}, and was so before"
        return (
            f"{self.name} jumped to {self.value:.6g} at step {self.step} and stayed there: {self.mads:.0f} median "
            f"absolute deviations above its median of {self.usual:.6g}"
        )


@dataclass(slots=True, kw_only=True)
class ValueWatch:
    """What one group of ranks has reported."""

    jump: Mapping[str, float] = field(default_factory=dict)
    """Pattern of names -> how many median absolute deviations above the median count as a jump."""
    window: int = 64
    """Samples from which it is learnt what is usual."""
    last: dict[str, float] = field(default_factory=dict)
    """The last sample of each value: the median of all ranks."""
    last_step: int = -1
    _usual: dict[str, deque[float]] = field(default_factory=dict)
    _bad: dict[tuple[str, int], int] = field(default_factory=dict)
    _high: dict[str, int] = field(default_factory=dict)
    _good: dict[str, int] = field(default_factory=dict)
    _seen: dict[int, int] = field(default_factory=dict)
    """The step of each rank's last sample."""

    def restart(self) -> None:
        """A new cycle: what was usual stays, what was wrong is over."""
        self._bad, self._high, self._good, self._seen = {}, {}, {}, {}

    @property
    def usual(self) -> Mapping[str, deque[float]]:
        """The samples from which it was learnt what is usual."""
        return self._usual

    def recall(self, usual: Mapping[str, Sequence[float]]) -> None:
        """Go on from what an earlier supervisor had learnt."""
        self._usual = {name: deque(samples, maxlen=self.window) for name, samples in usual.items()}

    def hear(self, steps: Mapping[int, int], values: Mapping[str, Mapping[int, float]]) -> Divergence | None:
        """Take in one round of heartbeats, of all ranks that have come to a new step; the verdict, if there is one.

        Args:
            steps: The last step of each rank.
            values: Name -> rank -> value.
        """
        fresh = {rank: step for rank, step in steps.items() if self._seen.get(rank) != step}
        self._seen.update(fresh)
        for name, by_rank in values.items():
            new = {rank: value for rank, value in by_rank.items() if rank in fresh}
            if not new:
                continue
            for rank, value in new.items():
                bad = 0 if math.isfinite(value) else self._bad.get((name, rank), 0) + 1
                self._bad[name, rank] = bad
                if bad >= NOT_FINITE_SAMPLES:
                    self.last[name], self.last_step = value, fresh[rank]
                    return Divergence(
                        name=name, value=value, step=fresh[rank], rank=rank, good=self._good.get(name, -1)
                    )
            finite = [value for value in new.values() if math.isfinite(value)]
            self.last_step = max(fresh.values())
            self.last[name] = statistics.median(finite) if finite else next(iter(new.values()))
            if finite and (found := self._jumped(name, self.last[name], self.last_step)) is not None:
                return found
            bad_somewhere = any(count for (of, _), count in self._bad.items() if of == name)
            if not bad_somewhere and not self._high.get(name):
                self._good[name] = min(fresh[rank] for rank in new)
        return None

    def _jumped(self, name: str, value: float, step: int) -> Divergence | None:
        limit = next((limit for pattern, limit in self.jump.items() if fnmatchcase(name, pattern)), None)
        if limit is None:
            return None
        usual = self._usual.setdefault(name, deque(maxlen=self.window))
        if len(usual) < min(SAMPLES_MIN, self.window):
            usual.append(value)
            return None
        median = statistics.median(usual)
        mad = statistics.median(abs(one - median) for one in usual)
        mads = (value - median) / max(mad, MAD_LEAST * abs(median), 1e-12)
        if mads <= limit:
            # What is high is not learnt, or a jump would become usual while it is being watched.
            self._high[name] = 0
            usual.append(value)
            return None
        self._high[name] = self._high.get(name, 0) + 1
        if self._high[name] < JUMP_SAMPLES:
            return None
        return Divergence(name=name, value=value, step=step, usual=median, mads=mads, good=self._good.get(name, -1))
