"""A clock that only moves when somebody sleeps."""

from collections.abc import Callable
from datetime import UTC, datetime


class FakeClock:
    """Starts at a fixed moment; `at(seconds, action)` runs an action when a sleep passes that moment."""

    def __init__(self, start_s: float = 1_795_417_200.0) -> None:
        self.start_s = start_s
        self.passed_s = 0.0
        self.slept: list[float] = []
        self._due: list[tuple[float, Callable[[], None]]] = []

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.start_s + self.passed_s, UTC)

    def monotonic_s(self) -> float:
        return self.passed_s

    def at(self, moment_s: float, action: Callable[[], None]) -> None:
        self._due.append((moment_s, action))

    def sleep_s(self, duration_s: float) -> None:
        self.slept.append(duration_s)
        self.passed_s += duration_s
        for entry in sorted((e for e in self._due if e[0] <= self.passed_s), key=lambda e: e[0]):
            self._due.remove(entry)
            entry[1]()
        if self.passed_s > 1e5:
            raise AssertionError("the code under test waits for ever")
