"""What saving and loading cost a run: `saves.jsonl` in the run folder, written by rank 0. Standard library only."""

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

FILE = "saves.jsonl"
DISK, MEMORY, LOAD, INTERVAL, FOLDER = "disk", "memory", "load", "interval", "folder"
"""Kinds of lines: a checkpoint was published; copies were made in memory (several in one line); ranks went on from
somewhere; the interval between saves was chosen; a folder of checkpoints was opened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line."""

    kind: str
    step: int
    epoch_s: float = field(default_factory=time.time)
    attempt: int = 0
    cycle: int = 0
    count: int = 1
    blocked_s: float = 0.0
    """How long training waited, the slowest rank's, for all of `count`."""
    wrote_s: float = 0.0
    """How long writing took beside the training, the slowest rank's."""
    size_bytes: int = 0
    """Of all ranks, for all of `count`."""
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """All lines of a kind together."""

    count: int
    blocked_s: float
    wrote_s: float
    size_bytes: int


class Saves:
    """The writing end: in a job's rank 0. Elsewhere it writes nothing."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._run_dir = Path(env["TRAINMASTER_RUN_DIR"]) if env.get("TRAINMASTER_RUN_DIR") else None
        self._attempt = int(env.get("TRAINMASTER_ATTEMPT", "0"))
        self._cycle = int(env.get("TRAINMASTER_CYCLE", "0"))

    def add(self, kind: str, *, step: int, **values: Any) -> None:
        """Write a line, if the disk takes it: what saving costs must not cost the run."""
        if self._run_dir is None:
            return
        line = Line(kind=kind, step=step, attempt=self._attempt, cycle=self._cycle, **values)
        try:
            descriptor = os.open(self._run_dir / FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(descriptor, json.dumps(asdict(line)).encode() + b"\n")
            finally:
                os.close(descriptor)
        except OSError:
            pass

    def lines(self) -> tuple[Line, ...]:
        """What stands there so far, also from earlier cycles."""
        return read(self._run_dir) if self._run_dir is not None else ()


def read(run_dir: Path) -> tuple[Line, ...]:
    """All whole lines; none when nothing was saved."""
    known = {one.name for one in fields(Line)}
    found = []
    try:
        with (run_dir / FILE).open(encoding="utf-8", errors="replace") as stream:
            for text in stream:
                try:
                    found.append(Line(**{key: value for key, value in json.loads(text).items() if key in known}))
                except (ValueError, TypeError, AttributeError):
                    continue
    except OSError:
        return ()
    return tuple(found)


def total(lines: Iterable[Line], kind: str) -> Total:
    """What all lines of a kind come to."""
    of_kind = [line for line in lines if line.kind == kind]
    return Total(
        count=sum(line.count for line in of_kind),
        blocked_s=round(sum(line.blocked_s for line in of_kind), 4),
        wrote_s=round(sum(line.wrote_s for line in of_kind), 4),
        size_bytes=sum(line.size_bytes for line in of_kind),
    )
