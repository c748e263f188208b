"""When the next checkpoint is due, the same on all ranks, and what the choice of "auto" is made of."""

import time
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path

from trainmaster.launcher import record
from trainmaster.launcher.rank import interval, saves
from trainmaster.launcher.rank.manifest import MEMORY

_SAVES_REMEMBERED = 8


class Measured:
    """What steps and saves have taken on this rank."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None
        self._last: tuple[int, float] | None = None
        self._paused_s = 0.0
        self._costs: deque[float] = deque(maxlen=_SAVES_REMEMBERED)
        self._writes: deque[float] = deque(maxlen=_SAVES_REMEMBERED)

    def step_done(self, step: int) -> None:
        """A step has ended now."""
        now = time.perf_counter()
        # The first step of a process is no measure: it compiles, connects, fills caches.
        self._first = self._first or (step, now)
        self._last = (step, now)

    def paused(self, seconds: float) -> None:
        """So much of the time since the last step went into saving."""
        self._paused_s += seconds

    def saved(self, cost_s: float, write_s: float) -> None:
        """A save has kept training waiting for `cost_s` and was written in `write_s`."""
        self._costs.append(cost_s)
        self._writes.append(write_s)

    @property
    def step_s(self) -> float:
        """The mean time of a step, without saving; 0 when it is not known yet."""
        if self._first is None or self._last is None or self._last[0] <= self._first[0]:
            return 0.0
        # What has been paused since the last step counts from the next one on, which makes no difference here.
        return max(0.0, self._last[1] - self._first[1] - self._paused_s) / (self._last[0] - self._first[0])

    @property
    def cost_s(self) -> float:
        """What training waited for one of the last saves, on average."""
        return sum(self._costs) / len(self._costs) if self._costs else 0.0

    @property
    def write_s(self) -> float:
        """What the slowest of the last saves took to write."""
        return max(self._writes, default=0.0)


class Pace:
    """The steps at which `after_step` saves."""

    def __init__(self, every: int | str, *, keep_every: int, before: int | None) -> None:
        """`every`: steps, 0 for never, or "auto". `before`: what was chosen last, by an earlier start of the run."""
        if every != "auto" and (not isinstance(every, int) or every < 0):
            raise ValueError(f'every must be a number of steps or "auto", it is {every!r}')
        self.auto = every == "auto"
        self.every = (before or interval.FIRST_EVERY) if isinstance(every, str) else every
        self.decided = 0
        """What was chosen while the last save was written; 0 for nothing new. The same on all ranks."""
        self._keep_every = keep_every
        self._known = before is not None
        self._next: int | None = None

    def due(self, step: int) -> bool:
        """Whether this step is to be saved."""
        if not self.every:
            return False
        if not self.auto:
            return step % self.every == 0
        if self._next is None:
            self._next = step + self.every - 1
        return step >= self._next or bool(self._keep_every and step % self._keep_every == 0)

    def saved(self, step: int) -> None:
        """A step is being saved, and the one before it is written."""
        if self.auto and self.decided:
            self.every, self._known, self.decided = self.decided, True, 0
        self._next = step + self.every

    def loaded(self, step: int) -> None:
        """The run goes on from a step."""
        self._next = step + self.every

    def choose(self, measured: Measured, env: Mapping[str, str], lines: Iterable[saves.Line]) -> interval.Choice | None:
        """The interval that the measurements ask for; None before there are any."""
        if not measured.step_s:
            return None
        nodes = len(env.get("TRAINMASTER_NODES", "").split(","))
        if "TRAINMASTER_NODES" not in env:
            nodes = max(1, int(env.get("WORLD_SIZE", "1")) // max(1, int(env.get("LOCAL_WORLD_SIZE", "1"))))
        events = record.read(Path(env["TRAINMASTER_RUN_DIR"])) if env.get("TRAINMASTER_RUN_DIR") else ()
        from_memory = sum(line.kind == saves.LOAD and line.detail.get("source") == MEMORY for line in lines)
        return interval.choose(
            step_s=measured.step_s,
            cost_s=measured.cost_s,
            write_s=measured.write_s,
            past=interval.past_of(events, now_s=time.time(), from_memory=from_memory),
            nodes=nodes,
            before=self.every if self._known else None,
        )
