"""Small files of /sys and /proc, as text. None where there is nothing: most nodes lack something that others have."""

from __future__ import annotations

import os


def text(path: str, limit: int = 1 << 20) -> str | None:
    """What a file says, without the white space around it; None when it is not there or refuses to be read."""
    try:
        with open(path, "rb") as stream:
            return stream.read(limit).decode(errors="replace").strip()
    except OSError:
        return None


def number(path: str) -> int | None:
    """A file that holds one whole number, in decimal or as 0x…; None for anything else."""
    found = text(path, 64)
    try:
        return int(found, 0) if found is not None else None
    except ValueError:
        return None


def names(folder: str) -> list[str]:
    """The entries of a folder in order; none when it is not there."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
