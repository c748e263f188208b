"""Time as a value that is passed in, so that decisions can be tested and simulated."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where a shell reads the time; decisions get `now` as an argument instead."""

    def now(self) -> datetime:
        """The wall clock in UTC."""

    def monotonic_s(self) -> float:
        """Seconds that never go back; only differences mean anything."""

    def sleep_s(self, duration_s: float) -> None:
        """Wait."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """The wall clock in UTC."""
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    def sleep_s(self, duration_s: float) -> None:
        """Wait."""
        time.sleep(duration_s)
