"""The files that ranks write: which is the newest, its end, and following it across restarts. Memory stays bounded."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from trainmaster.launcher import record
from trainmaster.launcher.record import Event

_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cycle:
    """One start of all ranks, and the folder of its files."""

    attempt: int
    cycle: int

    def folder(self, run_dir: Path) -> Path:
        """Where its files lie."""
        return run_dir / f"attempt{self.attempt}.{self.cycle}"

    def successor(self, run_dir: Path) -> "Cycle | None":
        """The cycle that comes right after this one, if its folder is there already."""
        for newer in (Cycle(attempt=self.attempt, cycle=self.cycle + 1), Cycle(attempt=self.attempt + 1, cycle=0)):
            if newer.folder(run_dir).is_dir():
                return newer
        return None


def cycles(run_dir: Path, events: Iterable[Event] | None = None) -> tuple[Cycle, ...]:
    """All cycles that have a folder, in the order of their start.

    By the record (`events`, read when not given) and by looking for the folder that comes next. The run folder is never
    listed: it may hold whatever else the job writes there, a hundred thousand files of it.
    """
    known = record.read(run_dir) if events is None else events
    told = {Cycle(attempt=event.attempt, cycle=event.cycle) for event in known if event.state != "SUBMITTED"}
    told.add(Cycle(attempt=0, cycle=0))
    found = [cycle for cycle in sorted(told) if cycle.folder(run_dir).is_dir()]
    # The folder is made before the record says so.
    last = max(told)
    while (newer := last.successor(run_dir)) is not None:
        found.append(newer)
        last = newer
    return tuple(found)


def tail(path: Path, *, bytes_max: int = 4096) -> str:
    """The end of a file, bounded, from the beginning of a line where there is one; "" when there is no file."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - bytes_max))
            data = stream.read(bytes_max)
    except OSError:
        return ""
    if size > bytes_max and b"\n" in data[:-1]:
        data = data[data.index(b"\n") + 1 :]
    return data.decode("utf-8", errors="replace")


def content(path: Path) -> Iterator[bytes]:
    """A whole file in pieces of at most 64 KiB, however long its lines are."""
    with path.open("rb") as stream:
        while piece := stream.read(_CHUNK):
            yield piece


class Tail:
    """One file of one rank as it grows, from a cycle into the next. A mark says where each further cycle begins."""

    def __init__(
        self, run_dir: Path, file_name: str, *, start: Cycle | None = None, recorded_only: bool = False
    ) -> None:
        """`start`: the cycle to begin with; the newest when not given.

        `recorded_only`: go by the record alone, since a folder may be another replica's.
        """
        self._recorded_only = recorded_only
        self._run_dir = run_dir
        self._name = file_name
        self._cycle = start
        self._position = 0

    def more(self, events: Iterable[Event]) -> Iterator[bytes]:
        """What was written since the last call, through all cycles that have begun by now. `events`: the record."""
        known = tuple(events)
        if self._cycle is None:
            found = cycles(self._run_dir, known)
            if self._recorded_only:
                found = tuple(one for one in found if (one.folder(self._run_dir) / self._name).exists())
            self._cycle = max(found, default=None)
        while self._cycle is not None:
            for piece in _from(self._cycle.folder(self._run_dir) / self._name, self._position):
                self._position += len(piece)
                yield piece
            newer = self._next(self._cycle, known)
            if newer is None:
                return
            self._cycle, self._position = newer, 0
            yield f"--- attempt {newer.attempt}, cycle {newer.cycle} ---\n".encode()

    def _next(self, current: Cycle, events: Iterable[Event]) -> Cycle | None:
        told = {Cycle(attempt=event.attempt, cycle=event.cycle) for event in events if event.state == "RUNNING"}
        for newer in sorted(cycle for cycle in told if cycle > current):
            if newer.folder(self._run_dir).is_dir():
                return newer
        return None if self._recorded_only else current.successor(self._run_dir)


def follow(
    run_dir: Path,
    file_name: str,
    *,
    over: Callable[[], bool],
    events: Callable[[], Iterable[Event]] | None = None,
    start: Cycle | None = None,
    poll_s: float = 0.2,
) -> Iterator[bytes]:
    """The file of that name in one cycle after the other, as they grow, until `over()` and all is read.

    A look costs a few questions to the file system, however many files lie in the run folder.

    Args:
        run_dir: The job's folder.
        file_name: For example `rank0.out`.
        over: Whether the job has ended.
        events: Gives the record; it is read at every look when not given.
        start: The cycle to begin with; the newest when not given.
        poll_s: Pause between two looks.
    """
    tail = Tail(run_dir, file_name, start=start)
    while True:
        # Asked before reading: what was written before the end is read below.
        ended = over()
        yield from tail.more(record.read(run_dir) if events is None else events())
        if ended:
            return
        time.sleep(poll_s)


def follow_file(path: Path, *, over: Callable[[], bool], poll_s: float = 0.2) -> Iterator[bytes]:
    """One file as it grows, until `over()` and all is read."""
    position = 0
    while True:
        ended = over()
        for piece in _from(path, position):
            position += len(piece)
            yield piece
        if ended:
            return
        time.sleep(poll_s)


class Lines:
    r"""Cuts pieces of a file into lines. A line longer than a mebibyte comes in parts.

    >>> cutter = Lines()
    >>> list(cutter.cut(b"ab\nc")), list(cutter.cut(b"d\n")), cutter.rest()
    ([b'ab\n'], [b'cd\n'], b'')
    """

    BYTES_MAX = 1 << 20

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._size = 0

    def cut(self, piece: bytes) -> Iterator[bytes]:
        """The lines that end in this piece."""
        *whole, rest = piece.split(b"\n")
        for line in whole:
            yield self.rest() + line + b"\n"
        self._rest.append(rest)
        self._size += len(rest)
        if self._size > self.BYTES_MAX:
            yield self.rest()

    def rest(self) -> bytes:
        """What is left without an end; it counts as given out."""
        left = b"".join(self._rest)
        self._rest, self._size = [], 0
        return left


def _from(path: Path, position: int) -> Iterator[bytes]:
    try:
        with path.open("rb") as stream:
            stream.seek(position)
            while piece := stream.read(_CHUNK):
                yield piece
    except OSError:
        return
