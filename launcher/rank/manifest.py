"""Checkpoints on the disk: what one says of itself, which there are, which are whole, which may go."""

import json
import os
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
DIVERGED = "diverged.json"
"""In a checkpoint: it may hold a state that has diverged, so nothing goes on from it. Whoever wants to, removes it."""
DISK, MEMORY = "disk", "memory"
_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a checkpoint says of itself."""

    step: int
    files: Mapping[str, tuple[int, int]]
    """Size in bytes and CRC-32 of each file."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the program gave to `save`."""
    world_size: int = 0
    blocked_s: float = 0.0
    """How long training waited for this save: for the one before to end, and for the copy. The slowest rank's."""
    wrote_s: float = 0.0
    """How long the writing took beside the training. The slowest rank's."""
    every: int = 0
    """Steps to the next one, when trainmaster chose the interval."""
    finite: bool = True
    """Every value that a rank had reported last was finite when it was saved. Where not, older ones are kept."""
    source: str = DISK
    """Where it was loaded from: "disk", or "memory" for copies that nodes held of each other's states."""

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(size for size, _ in self.files.values())


def read_manifest(path: Path) -> Manifest:
    """The manifest of one checkpoint. Raises OSError, or ValueError for a file that is none."""
    try:
        values = json.loads((path / MANIFEST).read_text())
        files = {name: (int(size), int(crc)) for name, (size, crc) in values.pop("files").items()}
        return Manifest(files=files, **values)
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path / MANIFEST} is no manifest: {error}") from None


def published(folder: Path) -> list[Path]:
    """Checkpoints under their final names, oldest step first; whether they are whole is another matter."""
    return sorted(path for path in folder.glob("step_*") if path.is_dir() and "." not in path.name)


def is_diverged(path: Path) -> bool:
    """Whether a checkpoint is marked as one that may hold a diverged state."""
    return (path / DIVERGED).exists()


def mark_diverged(folder: Path, note: Mapping[str, Any]) -> list[str]:
    """Mark the published checkpoints from the step `note["since"]` on; returns the names of those that are marked."""
    names = []
    for path in published(folder):
        if int(path.name.removeprefix("step_")) < note["since"]:
            continue
        if not is_diverged(path):
            write_synced(path / f".{DIVERGED}", json.dumps(note))
            (path / f".{DIVERGED}").replace(path / DIVERGED)
        names.append(path.name)
    return names


def begins_anew(marked: list[Path]) -> bool:
    """Whether checkpoints that are all marked come from a run that never had a good value, so nothing is lost."""
    try:
        return all(json.loads((path / DIVERGED).read_text())["good"] < 0 for path in marked)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def is_finite(path: Path) -> bool:
    """Whether a checkpoint's manifest says that what was reported was finite; True when it cannot be read."""
    try:
        return read_manifest(path).finite
    except (OSError, ValueError):
        return True


def to_remove(steps: list[int], *, keep: int, keep_every: int) -> list[int]:
    """Which of the published steps, oldest first, are no longer wanted: all but the last `keep`, and every n-th.

    >>> to_remove([10, 20, 30, 40], keep=2, keep_every=0), to_remove([10, 20, 30, 40], keep=1, keep_every=20)
    ([10, 20], [10, 30])
    """
    return [step for step in steps[: max(0, len(steps) - keep)] if not keep_every or step % keep_every]


def remove(folder: Path, names: list[str]) -> None:
    """Remove some checkpoints."""
    for name in names:
        shutil.rmtree(folder / name)


def is_whole(path: Path, *, share: int, shares: int) -> bool:
    """Whether each `shares`-th file of a checkpoint, from number `share` on, is what its manifest says."""
    try:
        files = sorted(read_manifest(path).files.items())
        return all(size_and_crc(path / name) == expected for name, expected in files[share::shares])
    except (OSError, ValueError):
        return False


def size_and_crc(path: Path) -> tuple[int, int]:
    """A file's size in bytes and CRC-32."""
    size, crc = 0, 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            size += len(chunk)
            crc = zlib.crc32(chunk, crc)
    return size, crc


def write_synced(path: Path, text: str) -> None:
    """Write a file that is on the disk afterwards."""
    with path.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(path: Path) -> None:
    """A file's name is on the disk only when the folder that holds the name is."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
