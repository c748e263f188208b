"""Processes: how many, zombies, who sleeps uninterruptibly, and what slurmd may do."""

from __future__ import annotations

import os
from typing import Any

from trainmaster.health import files
from trainmaster.health.check import Place, Source

STUCK_MAX = 50


def read(place: Place) -> Any:
    """{"count", "threads", "pid_max", …, "zombies", "stuck": [[pid, start, name, where]], "slurmd": {limit: soft}}.

    "stepds" is how many slurmstepd run here: none, and no job does.
    """
    root = place.root
    count = zombies = stepds = 0
    stuck: list[list[Any]] = []
    slurmd: dict[str, str] | None = None
    own = os.getpid()
    for name in os.listdir(root + "/proc"):
        if not name.isdecimal() or int(name) == own:
            continue
        line = files.text(f"{root}/proc/{name}/stat", 1024)
        parsed = parse_stat(line or "")
        if parsed is None:
            continue
        count += 1
        command, state, started = parsed
        zombies += state == "Z"
        stepds += command == "slurmstepd"
        if state == "D" and len(stuck) < STUCK_MAX:
            stuck.append([int(name), started, command, files.text(f"{root}/proc/{name}/wchan", 128) or ""])
        if command == "slurmd" and slurmd is None:
            slurmd = limits(files.text(f"{root}/proc/{name}/limits") or "")
    opened = (files.text(root + "/proc/sys/fs/file-nr", 128) or "").split()
    load = (files.text(root + "/proc/loadavg", 128) or "").split()
    return {
        "count": count,
        "threads": int(load[3].partition("/")[2]) if len(load) > 3 else None,
        "pid_max": files.number(root + "/proc/sys/kernel/pid_max"),
        "threads_max": files.number(root + "/proc/sys/kernel/threads-max"),
        "files": int(opened[0]) if len(opened) == 3 else None,
        "files_max": int(opened[2]) if len(opened) == 3 else None,
        "zombies": zombies,
        "stepds": stepds,
        "stuck": stuck,
        "slurmd": slurmd,
    }


def parse_stat(line: str) -> tuple[str, str, int] | None:
    """Command, state, start time of /proc/<pid>/stat. A command may hold blanks and parentheses. Pure.

    >>> parse_stat("7 (a) b) D 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0")
    ('a) b', 'D', 4242)
    """
    start, end = line.find("("), line.rfind(")")
    rest = line[end + 2 :].split(" ")
    if start < 0 or end < start or len(rest) < 20 or not rest[19].isdecimal():
        return None
    return line[start + 1 : end], rest[0], int(rest[19])


def limits(text: str) -> dict[str, str]:
    """The soft limits of /proc/<pid>/limits, whose columns have fixed places. Pure."""
    found = {}
    for line in text.splitlines()[1:]:
        name, values = line[:26].strip(), line[26:].split()
        if name and values:
            found[name] = values[0]
    return found


SOURCE = Source(name="proc.table", about="/proc/*/stat, /proc/<slurmd>/limits, /proc/sys/{fs,kernel}", read=read)
