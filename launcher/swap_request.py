"""Asks a running job to leave nodes: `swaps.jsonl` in its run folder, a line for each wish. Standard library only.

Whoever may write there may ask: the job's owner. The supervisor reads it once a second (`supervise/swapping`).
"""

import json
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from trainmaster.launcher.intent import who

FILE = "swaps.jsonl"
_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapRequest:
    """One wish: let spares take over from these nodes, at a checkpoint, while the job runs on."""

    id: str
    nodes: tuple[str, ...]
    attempt: int
    """Slurm's restart count of the attempt that has these nodes."""
    by: str = ""
    reason: str = ""
    """In the asker's own words."""
    cause: str = "requested"
    """What the record calls it: requested, or maintenance."""
    time: float = 0.0
    """Seconds since the epoch."""
    until: float | None = None
    """Afterwards it is of no use any more; None for a wish that waits as long as it takes."""


def leave(
    run_dir: Path,
    nodes: Sequence[str],
    *,
    attempt: int,
    reason: str = "",
    cause: str = "requested",
    until: float | None = None,
) -> SwapRequest:
    """Write a wish down, with one write, so that two askers never mix. Raises OSError."""
    request = SwapRequest(
        id=uuid.uuid4().hex[:10],
        nodes=tuple(dict.fromkeys(nodes)),
        attempt=attempt,
        by=who(),
        reason=reason,
        cause=cause,
        time=time.time(),
        until=until,
    )
    descriptor = os.open(run_dir / FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, json.dumps(asdict(request)).encode() + b"\n")
    finally:
        os.close(descriptor)
    return request


def parse(line: str) -> SwapRequest | None:
    """One wish; None for what is none.

    >>> parse('{"id": "a", "nodes": ["n1"], "attempt": 0, "colour": "red"}').nodes
    ('n1',)
    >>> parse("torn li")
    """
    known = {entry.name for entry in fields(SwapRequest)}
    try:
        values = {key: value for key, value in json.loads(line).items() if key in known}
        values["nodes"] = tuple(str(name) for name in values["nodes"])
        return SwapRequest(**values)
    except (ValueError, TypeError, AttributeError, KeyError):
        return None


class Reader:
    """The reading end: each whole line once."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / FILE
        self._offset = 0

    def fresh(self) -> list[SwapRequest]:
        """What was written since the last time."""
        try:
            if self._path.stat().st_size <= self._offset:
                return []
            with self._path.open("rb") as stream:
                stream.seek(self._offset)
                whole, newline, _ = stream.read(_BYTES_MAX).rpartition(b"\n")
        except OSError:
            return []
        self._offset += len(whole) + len(newline)
        found = (parse(line) for line in whole.decode(errors="replace").splitlines())
        return [one for one in found if one is not None]
