"""The files that ranks write: which is the newest, its end, and following it across restarts. Memory stays bounded."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cycle:
    """One start of all ranks, and the folder of its files."""

    attempt: int
    cycle: int

    def folder(self, run_dir: Path) -> Path:
        """Where its files lie."""
        return run_dir / f"attempt{self.attempt}.{self.cycle}"


def cycles(run_dir: Path) -> tuple[Cycle, ...]:
    """All cycles that have a folder, in the order of their start."""
    found = []
    for path in run_dir.glob("attempt*.*"):
        attempt, _, cycle = path.name.removeprefix("attempt").partition(".")
        if attempt.isdecimal() and cycle.isdecimal():
            found.append(Cycle(attempt=int(attempt), cycle=int(cycle)))
    return tuple(sorted(found))


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


def follow(run_dir: Path, file_name: str, *, over: Callable[[], bool], poll_s: float = 0.2) -> Iterator[bytes]:
    """The file of that name in one cycle after the other, as they grow, until `over()` and all is read.

    A mark between two cycles says where the next begins. Starts with the newest cycle.
    """
    position = 0
    current: Cycle | None = None
    while True:
        # Asked before reading: what was written before the end is read below.
        ended = over()
        known = cycles(run_dir)
        if current is None and known:
            current = known[-1]
        if current is not None:
            for piece in _from(current.folder(run_dir) / file_name, position):
                position += len(piece)
                yield piece
            newer = [cycle for cycle in known if cycle > current]
            if newer:
                current, position = newer[0], 0
                yield f"--- attempt {current.attempt}, cycle {current.cycle} ---\n".encode()
                continue
        if ended:
            return
        time.sleep(poll_s)


def _from(path: Path, position: int) -> Iterator[bytes]:
    try:
        with path.open("rb") as stream:
            stream.seek(position)
            while piece := stream.read(_CHUNK):
                yield piece
    except OSError:
        return
