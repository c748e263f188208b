"""Small files of /sys and /proc, as text. None where there is nothing: most nodes lack something that others have."""

from __future__ import annotations

import os

ONE_READ = 4096
"""Bytes. What the kernel tells in one piece (a value, a process's stat, status or cgroup) comes with the first read."""


def text(path: str, limit: int = 1 << 20) -> str | None:
    """What a file says, without the white space around it; None when it is not there or refuses to be read.

    A pass reads hundreds of these files, and `open` with its buffers would ask the kernel seven times for each. Up to
    ONE_READ it is asked once for the text; with a larger limit until there is no more.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(descriptor, limit)
            while limit > ONE_READ and len(data) < limit:
                more = os.read(descriptor, limit - len(data))
                if not more:
                    break
                data += more
        finally:
            os.close(descriptor)
    except OSError:
        return None
    return data.decode(errors="replace").strip()


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
