"""The time of steps by the GPU's own clock. Standard library only; torch.cuda is handed in.

A process that trains on a GPU only gives orders: it runs ahead of the GPU, and where it waits in the end says nothing
of whom it waits for. So CUDA events are put into the stream where steps and waits begin and end, in one step of
sixteen, and read when the GPU has passed them. An event costs some microseconds, and the processor never waits for one.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

SAMPLE_EVERY = 16
_PENDING_MAX = 64
"""Steps whose events the GPU has not passed yet; beyond, the oldest are given up."""


class GpuTime:
    """Takes the time of some steps, and tells it by `took(own_s, wall_s)`."""

    def __init__(self, event: Callable[[], Any], took: Callable[[float, float], None]) -> None:
        """`event` makes an event that has timing: `lambda: torch.cuda.Event(enable_timing=True)`."""
        self._event = event
        self._took = took
        self._steps = 0
        self._marks: list[Any] | None = None
        """Of the step that is sampled: its begin, then begin and end of each wait."""
        self._pending: deque[list[Any]] = deque(maxlen=_PENDING_MAX)

    def leave(self) -> None:
        """A wait begins."""
        if self._marks is not None:
            self._marks.append(self._mark())

    def come_back(self) -> None:
        """A wait ends."""
        self.leave()

    def step(self, *, counts: bool) -> None:
        """A step ends, and the next begins."""
        if self._marks is not None and counts:
            self._pending.append([*self._marks, self._mark()])
        self._marks = None
        while self._pending and self._pending[0][-1].query():
            own_s, wall_s = read(self._pending.popleft())
            self._took(own_s, wall_s)
        self._steps += 1
        if self._steps % SAMPLE_EVERY == 0 and counts:
            self._marks = [self._mark()]

    def _mark(self) -> Any:
        event = self._event()
        event.record()
        return event


def read(marks: list[Any]) -> tuple[float, float]:
    """A step's own time and its whole time, in seconds, of the events begin, (wait, go on)*, end."""
    wall_ms = marks[0].elapsed_time(marks[-1])
    waited_ms = sum(marks[at].elapsed_time(marks[at + 1]) for at in range(1, len(marks) - 1, 2))
    return (wall_ms - waited_ms) / 1000, wall_ms / 1000
