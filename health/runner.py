"""Looks at all sources of a pass at once, and never longer than it was allowed.

All sources that only read files share one forked child, which tells each value as it has it; a source that does not
come back costs that child, and the sources after it get another. Each command, and each function that a
source asks, is a child of its own. So a pass with a
stuck mount, a stuck driver or a stuck firmware ends in time, and says what hung.
"""

from __future__ import annotations

import json
import os
import select
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence

from trainmaster.health import children
from trainmaster.health.check import Absent, Completed, Missing, Place, Source, SourceFault
from trainmaster.health.children import Child
from trainmaster.health.profile import number
from trainmaster.health.record import Any, NamedTuple

BUDGET_S = 45.0
"""slurmd kills a HealthCheckProgram after 60 s (slurm.conf(5)); what is left is for the report and the drain."""
DEEP_BUDGET_S = 1800.0
"""For the deep set, which no hook runs: each of its sources has a deadline of its own."""
_TICK_S = 0.005
_LINGER_S = 0.25
"""How long the output of a command is waited for after its end: a process that it left behind may hold its pipes."""


class Reading(NamedTuple):
    """What a source gave."""

    state: str
    """ok, absent, missing, failed, hung, or late: the pass was over before the source's own deadline."""
    value: Any = None
    detail: str = ""
    ms: float = 0.0


def read_all(
    sources: Sequence[Source],
    place: Callable[[Source], Place],
    *,
    budget_s: float = BUDGET_S,
    kill: Callable[[int, int], None] = os.killpg,
    stuck: Mapping[str, Any] | None = None,
) -> dict[str, Reading]:
    """A reading of every source, by its name, within `budget_s` and half a second.

    Args:
        sources: each at most once.
        place: where each looks.
        budget_s: for all together; each has its own deadline as well.
        kill: sends a signal to a process group; a test replaces it by something that does not kill.
        stuck: by a source's name, the process that an earlier pass had to abandon (`Reading.value` of a hang). While it
            lives the source still hangs, and is not asked: otherwise each pass would leave one more process behind.
    """
    race = _Race(time.monotonic() + budget_s, kill)
    held = {name: known for name, known in (stuck or {}).items() if children.lives(known)}
    for source in sources:
        if source.name in held:
            detail = f"process {held[source.name][0]} of an earlier pass still hangs"
            race.readings[source.name] = Reading("hung", held[source.name], detail)
    sources = [source for source in sources if source.name not in held]
    readers = [source for source in sources if source.read is not None]
    tasks: list[_Task] = [_Asker(source, place(source), race) for source in sources if source.ask is not None]
    if readers:
        tasks.append(_Readers(readers, place, race))
    poll = select.poll()
    watched: set[int] = set()
    while True:
        tasks = [task for task in tasks if not task.over]
        if not tasks:
            break
        owners = {descriptor: task for task in tasks for descriptor in task.descriptors()}
        for descriptor in watched - set(owners):
            poll.unregister(descriptor)
        for descriptor in set(owners) - watched:
            poll.register(descriptor, select.POLLIN | select.POLLHUP)
        watched = set(owners)
        wait_s = min(task.deadline_s for task in tasks) - time.monotonic()
        if any(not task.descriptors() for task in tasks):
            wait_s = min(wait_s, _TICK_S)
        elif any(isinstance(task, _Asker) for task in tasks):
            wait_s = min(wait_s, _LINGER_S)
        for descriptor, _ in poll.poll(max(0.0, wait_s) * 1000):
            owners[descriptor].hear(descriptor)
        for task in tasks:
            task.step(time.monotonic())
    for child in children.reap(race.killed):
        race.abandoned.append(child.pid)
        name = race.given_up.get(child.pid, "")
        if name in race.readings:
            race.readings[name] = race.readings[name]._replace(value=children.identity(child.pid))
    return race.readings


class _Race:
    """What the tasks of one pass share."""

    def __init__(self, end_s: float, kill: Callable[[int, int], None]) -> None:
        self.end_s = end_s
        self.kill = kill
        self.killed: list[Child] = []
        self.abandoned: list[int] = []
        self.given_up: dict[int, str] = {}
        """By a child's pid, the source on which it hangs."""
        self.readings: dict[str, Reading] = {}

    def deadline_s(self, source: Source, place: Place) -> float:
        """Until when a source that begins now may take."""
        return min(time.monotonic() + _patience_s(source, place), self.end_s)

    def give_up(self, child: Child, source: Source, place: Place, began_s: float) -> None:
        where = child.where()
        child.kill(self.kill)
        self.killed.append(child)
        self.given_up[child.pid] = source.name
        took_s = time.monotonic() - began_s
        detail = f"no answer within {took_s:.0f} s" + (f", in {where}" if where else "")
        # Cut off by the end of the pass, it may only have been slow; that must not drain a node.
        state = "hung" if took_s >= _patience_s(source, place) - _TICK_S else "late"
        self.readings[source.name] = Reading(state, detail=detail, ms=took_s * 1000)


def _patience_s(source: Source, place: Place) -> float:
    """How long a source may take: the site's choice, or its own."""
    chosen = number(place.profile.table("deadlines_s").get(source.name))
    return chosen if chosen is not None and chosen > 0 else source.deadline_s


class _Task(ABC):
    """Something under way: it has descriptors to listen to, a deadline, and an end."""

    over = False
    deadline_s = 0.0
    child: Child | None = None

    def descriptors(self) -> set[int]:
        return self.child.open if self.child is not None else set()

    def hear(self, descriptor: int) -> None:
        assert self.child is not None
        if descriptor in self.child.open:
            self.child.hear(descriptor)

    @abstractmethod
    def step(self, now_s: float) -> None:
        """Do what can be done without waiting."""


class _Asker(_Task):
    """One source that asks commands or functions, one after another."""

    def __init__(self, source: Source, place: Place, race: _Race) -> None:
        assert source.ask is not None
        self._source, self._place, self._race = source, place, race
        self._began_s = time.monotonic()
        self._ended_s: float | None = None
        self.deadline_s = race.deadline_s(source, place)
        self._answers: Generator[list[str] | Callable[[], str], Completed, Any] = source.ask(place)
        self._go_on(None)

    def _go_on(self, completed: Completed | None) -> None:
        """Hand over how the last command ended, and start the next."""
        self.child = None
        try:
            question = self._answers.send(completed) if completed is not None else next(self._answers)
            if callable(question):
                self.child = children.call(question)
                return
            path = question[0] if os.path.sep in question[0] else children.which(question[0])
            if path is None:
                raise Missing(f"{question[0]} is not installed")
            self.child = children.execute([path, *question[1:]])
        except StopIteration as stop:
            self._end(Reading("ok", stop.value))
        except Exception as error:  # noqa: BLE001 - whatever a parser meets, the pass goes on
            self._end(_reading_of(error))

    def _end(self, reading: Reading) -> None:
        self.over = True
        took_s = time.monotonic() - self._began_s
        self._race.readings[self._source.name] = reading._replace(ms=took_s * 1000)

    def step(self, now_s: float) -> None:
        child = self.child
        if child is None:
            return
        if child.open and child.ended():
            self._ended_s = self._ended_s or now_s
            if now_s - self._ended_s >= _LINGER_S:
                child.hang_up()
        if not child.open and child.ended():
            assert child.status is not None
            self._ended_s = None
            out, err = (bytes(data).decode(errors="replace") for data in child.streams.values())
            self._go_on(Completed(out, err, child.status))
        elif now_s >= self.deadline_s:
            self._race.give_up(child, self._source, self._place, self._began_s)
            self.over = True


class _Readers(_Task):
    """All sources that read files, in one child as long as none of them sticks."""

    def __init__(self, sources: Sequence[Source], place: Callable[[Source], Place], race: _Race) -> None:
        self._left = list(sources)
        self._place, self._race = place, race
        self._fork()

    def _fork(self) -> None:
        left = self._left
        if not left:
            self.child, self.over = None, True
            return
        self._heard = 0
        self._begin_next()
        self.child = children.fork(lambda descriptor: _tell_all(left, self._place, descriptor))

    def _begin_next(self) -> None:
        self._began_s = time.monotonic()
        if self._left:
            self.deadline_s = self._race.deadline_s(self._left[0], self._place(self._left[0]))

    def step(self, now_s: float) -> None:
        child = self.child
        if child is None:
            return
        (text,) = child.streams.values()
        while self._left and (end := text.find(b"\n", self._heard)) >= 0:
            line, self._heard = bytes(text[self._heard : end]), end + 1
            told = json.loads(line)
            source = self._left.pop(0)
            ms = (time.monotonic() - self._began_s) * 1000
            self._race.readings[source.name] = Reading(told["state"], told["value"], told["detail"], told.get("ms", ms))
            self._begin_next()
        if not self._left:
            self._leave(child)
            self.over = True
        elif not child.open:
            # It died without a word about this one, by a signal or by running out of memory.
            self._leave(child)
            source = self._left.pop(0)
            self._race.readings[source.name] = Reading("failed", detail="the process that read it died")
            self._fork()
        elif now_s >= self.deadline_s:
            source = self._left.pop(0)
            self._race.give_up(child, source, self._place(source), self._began_s)
            self._fork()

    def _leave(self, child: Child) -> None:
        child.kill(self._race.kill)
        self._race.killed.append(child)


def _tell_all(sources: Sequence[Source], place: Callable[[Source], Place], descriptor: int) -> None:
    """In the child: look at each source, and write a line about it."""
    for source in sources:
        assert source.read is not None
        began_s = time.monotonic()
        try:
            reading = Reading("ok", source.read(place(source)))
        except Exception as error:  # noqa: BLE001 - the others still have to be looked at
            reading = _reading_of(error)
        ms = (time.monotonic() - began_s) * 1000
        told: Mapping[str, Any] = {"state": reading.state, "value": reading.value, "detail": reading.detail, "ms": ms}
        data = json.dumps(told).encode() + b"\n"
        while data:
            data = data[os.write(descriptor, data) :]


def _reading_of(error: Exception) -> Reading:
    if isinstance(error, Absent):
        return Reading("absent", detail=str(error))
    if isinstance(error, Missing):
        return Reading("missing", detail=str(error))
    if isinstance(error, (SourceFault, OSError)):
        return Reading("failed", detail=str(error))
    return Reading("failed", detail=f"{type(error).__name__}: {error}")
