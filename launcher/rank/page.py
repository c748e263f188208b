"""The page of memory in which a rank tells its agent where it is, and is told when to save. Standard library only.

    0  step     8  when it was done (epoch seconds)     16  since when it is in its section (CLOCK_MONOTONIC; 0 outside)
    24  whether it names sections at all                32  the section's name, 32 bytes, padded with zeros
    64  whether it asks for orders                      72  the order's step    80  its kind    88  its state
    96  the reported step at which the rank followed it; -1 before
   104  1 once the rank outlives a SIGTERM to wait for orders
   128  how many values it reports    136  whether it told of a checkpoint    144  the step of the newest one
   160  steps whose time was taken     168  their time without that spent waiting for other ranks     176  their time
   192  the values: eight times a name (32 bytes, padded with zeros) and a number (8 bytes)

Every number is an aligned word of the machine, so a reader sees an old or a new one and never half of each. Rank and
agent share a machine, hence its monotonic clock.
"""

import math
import mmap
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Protocol

SIZE = 512
VALUES_MAX = 8
"""How many values a rank can report; further names are passed over."""
_STEP, _STEP_TIME, _SINCE, _SECTIONS = 0, 1, 2, 3
_NAME = slice(32, 64)
_ASKS, _ORDER_STEP, _ORDER_KIND, _ORDER_STATE, _FOLLOWED = 8, 9, 10, 11, 12
_HOLDS, _VALUES, _SAVED, _SAVED_STEP = 13, 16, 17, 18
_VALUES_AT, _VALUE_BYTES, _NAME_BYTES = 192, 40, 32
_COUNT, _OWN, _WALL = 20, 21, 22
_NONE = -1
_NO_ORDER, _PROPOSED, _DECIDED = 0, 1, 2
_DECISION_PATIENCE_S = 30.0
"""How long a rank waits at the step of an order that is not decided yet; a decision takes one round trip."""


class Kind(IntEnum):
    """What ranks can be ordered to do, all at the same step."""

    NOTHING = 0
    CHECKPOINT = 1
    """Save, and go on."""
    STOP = 2
    """Save, and end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Where a rank is."""

    step: int | None = None
    """The last step that it reported; None before the first."""
    step_epoch_s: float = 0.0
    section: str = ""
    """The slow phase that it said it is in; empty outside."""
    section_age_s: float = 0.0
    sections: bool = False
    """It names its slow phases, so outside of them it is in its loop."""
    asks: bool = False
    """It asks for orders after its steps."""
    holds: bool = False
    """SIGTERM does not end it at once: it waits for orders."""
    values: Mapping[str, float] = field(default_factory=dict)
    """What it reported with its steps."""
    saved: int | None = None
    """The step of the newest checkpoint that it told of."""
    timed: int = 0
    """Steps whose time was taken. The two times add up what they took, sections left out."""
    own_s: float = 0.0
    """Without the time in which the rank waited for others."""
    wall_s: float = 0.0


class Clock(Protocol):
    """Another clock than the processor's (`gpu_time`)."""

    def step(self, *, counts: bool) -> None:
        """A step has ended; `counts`: it was one without sections."""

    def leave(self) -> None:
        """The rank does something else now than the step's own work."""

    def come_back(self) -> None:
        """It goes on."""


class Page:
    """A page, as the rank that writes it or the agent that reads it has mapped it."""

    __slots__ = (
        *("_raw", "_words", "_floats", "_slots"),
        *("_origin_s", "_count", "_depth", "_left_s", "_waited_s", "_apart_s", "_apart_before_s", "clock"),
    )

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as stream:
            self._raw = memoryview(mmap.mmap(stream.fileno(), SIZE))
        self._words = self._raw.cast("q")
        self._floats = self._raw.cast("d")
        self._slots: dict[str, int] = {}
        self._origin_s = 0.0
        """When the first step was reported, from which times are counted; 0 before."""
        self._count = 0
        """Steps since then."""
        self._depth = 0
        """How many sections and collectives the rank is in."""
        self._left_s = 0.0
        """When it entered the first of them."""
        self._waited_s = self._apart_s = self._apart_before_s = 0.0
        """Time in collectives; in sections; in sections before this step."""
        self.clock: Clock | None = None
        """Takes the steps' time in our place, and tells it by `took`."""

    def step(self, number: int) -> None:
        """Step `number` is done."""
        words, floats = self._words, self._floats
        words[_STEP] = number
        floats[_STEP_TIME] = time.time()
        now_s = time.perf_counter()
        if self._depth:
            # A loop inside a section, say: this step is over, and so is what the section has of it.
            self._apart_s += now_s - self._left_s
            self._left_s = now_s
        if self.clock is not None:
            self.clock.step(counts=self._apart_s == self._apart_before_s)
            self._apart_before_s = self._apart_s
        elif self._origin_s:
            wall_s = now_s - self._origin_s - self._apart_s
            floats[_WALL] = wall_s
            floats[_OWN] = wall_s - self._waited_s
            # A reader between these lines is wrong by one step, of the many that it looks at together.
            self._count += 1
            words[_COUNT] = self._count
        else:
            self._origin_s, self._waited_s, self._apart_s = now_s, 0.0, 0.0

    def took(self, own_s: float, wall_s: float) -> None:
        """The other clock's word: one step took `wall_s`, of which `own_s` were not spent waiting for other ranks."""
        self._floats[_OWN] += own_s
        self._floats[_WALL] += wall_s
        self._words[_COUNT] += 1

    def leave(self) -> None:
        """Begin something that is not the step's own work: a section, or waiting for other ranks."""
        if not self._depth:
            self._left_s = time.perf_counter()
            if self.clock is not None:
                self.clock.leave()
        self._depth += 1

    def come_back(self, *, waited: bool) -> None:
        """End it; of several inside one another the outermost counts."""
        self._depth -= 1
        if not self._depth:
            passed_s = time.perf_counter() - self._left_s
            if waited:
                self._waited_s += passed_s
            else:
                self._apart_s += passed_s
            if self.clock is not None:
                self.clock.come_back()

    def report(self, name: str, value: float) -> None:
        """A value that belongs to the step that is told next."""
        slot = self._slots.get(name)
        if slot is None:
            slot = self._new_slot(name)
        if slot:
            self._floats[slot] = value

    def is_finite(self) -> bool:
        """Whether all values that were reported last are finite."""
        return all(math.isfinite(self._floats[slot]) for slot in self._slots.values() if slot)

    def _new_slot(self, name: str) -> int:
        """The number's place for a name that was not reported before; 0 when there is no room."""
        number = len(self._slots)
        if number >= VALUES_MAX:
            return 0
        start = _VALUES_AT + _VALUE_BYTES * number
        self._raw[start : start + _NAME_BYTES] = name.encode()[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0")
        slot = self._slots[name] = (start + _NAME_BYTES) // 8
        self._floats[slot] = 0.0
        # The reader counts on what stands before this number.
        self._words[_VALUES] = number + 1
        return slot

    def saved(self, step: int) -> None:
        """A checkpoint of a step is published."""
        self._words[_SAVED_STEP] = step
        self._words[_SAVED] = 1

    def hold(self) -> None:
        """From now on the rank outlives a SIGTERM for a while."""
        self._words[_HOLDS] = 1

    def enter(self, section: str, since: float) -> tuple[str, float]:
        """Be in a section since `since`, or in none ("", 0.0); returns where the rank was before."""
        before = (bytes(self._raw[_NAME]).rstrip(b"\0").decode(errors="replace"), self._floats[_SINCE])
        # In this order a reader may see the new name with no time, that is no section, but never with the old time.
        self._floats[_SINCE] = 0.0
        self._words[_SECTIONS] = 1
        self._raw[_NAME] = section.encode()[:32].ljust(32, b"\0")
        self._floats[_SINCE] = since
        return before

    def due(self) -> Kind:
        """What is ordered for the step that was reported last: the same on all ranks, as long as all take every step.

        An order is first proposed for a step to come, and decided once every agent has seen that none of its ranks was
        there yet. A rank that comes to the step in between waits for the decision.
        """
        words = self._words
        words[_ASKS] = 1
        if words[_ORDER_STATE] == _NO_ORDER or words[_STEP] < words[_ORDER_STEP]:
            return Kind.NOTHING
        if words[_FOLLOWED] != _NONE:
            return Kind(words[_ORDER_KIND]) if words[_FOLLOWED] == words[_STEP] else Kind.NOTHING
        deadline = time.monotonic() + _DECISION_PATIENCE_S
        while words[_ORDER_STATE] == _PROPOSED and words[_STEP] >= words[_ORDER_STEP]:
            if time.monotonic() > deadline:
                return Kind.NOTHING
            time.sleep(0.001)
        if words[_ORDER_STATE] != _DECIDED or words[_STEP] < words[_ORDER_STEP]:
            return Kind.NOTHING
        # The step itself, or the first after it that a program reports which counts in strides.
        words[_FOLLOWED] = words[_STEP]
        return Kind(words[_ORDER_KIND])

    def propose(self, kind: Kind, step: int) -> None:
        """Order something for a step to come, subject to `decide`."""
        self._words[_ORDER_STATE] = _NO_ORDER
        self._words[_ORDER_STEP] = step
        self._words[_ORDER_KIND] = kind
        self._words[_FOLLOWED] = _NONE
        self._words[_ORDER_STATE] = _PROPOSED

    def decide(self, *, holds: bool) -> None:
        """Confirm the order or take it back."""
        self._words[_ORDER_STATE] = _DECIDED if holds else _NO_ORDER


def create(path: Path) -> None:
    """Make an empty page: no step yet, in no section."""
    path.write_bytes(bytes(SIZE))


def read(path: Path) -> Report:
    """What the page says; an empty report when it is not there."""
    try:
        data = memoryview(path.read_bytes())
    except OSError:
        return Report()
    if len(data) < SIZE:
        return Report()
    words, floats = data.cast("q"), data.cast("d")
    reported = floats[_STEP_TIME] > 0
    since = floats[_SINCE]
    return Report(
        step=words[_STEP] if reported else None,
        step_epoch_s=floats[_STEP_TIME],
        section=bytes(data[_NAME]).rstrip(b"\0").decode(errors="replace") if since else "",
        section_age_s=max(0.0, time.monotonic() - since) if since else 0.0,
        sections=bool(words[_SECTIONS]),
        asks=bool(words[_ASKS]),
        holds=bool(words[_HOLDS]),
        values=_values(data, floats, words[_VALUES]),
        saved=words[_SAVED_STEP] if words[_SAVED] else None,
        timed=words[_COUNT],
        own_s=floats[_OWN],
        wall_s=floats[_WALL],
    )


def _values(data: memoryview, floats: "memoryview[float]", count: int) -> dict[str, float]:
    found = {}
    for start in range(_VALUES_AT, _VALUES_AT + _VALUE_BYTES * min(count, VALUES_MAX), _VALUE_BYTES):
        name = bytes(data[start : start + _NAME_BYTES]).rstrip(b"\0").decode(errors="replace")
        found[name] = float(floats[(start + _NAME_BYTES) // 8])
    return found


class Section:
    """A phase of a rank that is rightly slower than a step: loading, evaluation, a checkpoint.

    What it may last is learnt from the times before, apart from what a step may last.
    """

    def __init__(self, page: Page | None, name: str) -> None:
        self._page = page
        self._name = name
        self._before = ("", 0.0)

    def __enter__(self) -> None:
        if self._page is not None:
            self._before = self._page.enter(self._name, time.monotonic())
            self._page.leave()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._page is not None:
            self._page.come_back(waited=False)
            self._page.enter(*self._before)


class Collective:
    """A stretch of a step in which a rank may wait for others: it is not held against the rank."""

    __slots__ = ("_page",)

    def __init__(self, page: Page | None) -> None:
        self._page = page

    def __enter__(self) -> None:
        if self._page is not None:
            self._page.leave()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._page is not None:
            self._page.come_back(waited=True)
