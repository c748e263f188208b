"""What ended jobs have left on a node: processes, files in /dev/shm, cgroups. Looking only; the epilog removes."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator

from trainmaster.health import files
from trainmaster.health.record import Any, NamedTuple

UID_MIN = 1000
SYSTEM_UIDS = range(60000, 65536)
"""Below UID_MIN (login.defs) is the system; 60000 and on distributions and systemd give to services (nobody: 65534)."""
SIGKILL_BIT = 1 << 8
SHM = "/dev/shm"
# cgroup v1 with any controller, v2 of slurmd's own and of systemd's scope; with several slurmd on a host their names.
_CGROUPS = "/sys/fs/cgroup"
_JOB = re.compile(r"job_(\d+)$")


class Left(NamedTuple):
    """A process."""

    pid: int
    started: int
    """In ticks since boot: with the pid it names one process and no later one."""
    uid: int
    name: str
    state: str
    killed: bool
    """A SIGKILL is pending: it has been told to die and does not."""


def is_person(uid: int) -> bool:
    """Whether jobs run as this user; not so root and the system's users. Pure."""
    return uid >= UID_MIN and uid not in SYSTEM_UIDS


def cgroup_of(root: str, pid: int) -> str:
    """The text of a process's cgroup; empty where it cannot be read."""
    return files.text(f"{root}/proc/{pid}/cgroup", 4096) or ""


def is_service(cgroup: str) -> bool:
    """Whether systemd started it for the node, as whichever user; what slurmd started is a job's. Pure.

    >>> is_service("0::/system.slice/exporter.service"), is_service("0::/system.slice/slurmd.service")
    (True, False)
    """
    return "/system.slice/" in cgroup and "slurm" not in cgroup


def processes(root: str) -> Iterator[Left]:
    """The processes of people, but for zombies and services."""
    for entry in files.names(root + "/proc"):
        if not entry.isdecimal():
            continue
        folder = f"{root}/proc/{entry}"
        try:
            uid = os.stat(folder).st_uid
        except OSError:
            continue
        if is_person(uid) and not is_service(cgroup_of(root, int(entry))):
            found = describe(int(entry), uid, files.text(f"{folder}/stat", 1024), files.text(f"{folder}/status", 4096))
            if found is not None:
                yield found


def describe(pid: int, uid: int, stat_line: str | None, status: str | None) -> Left | None:
    """A process from its stat and status; None for zombies and for what is gone. Pure."""
    line = stat_line or ""
    start, end = line.find("("), line.rfind(")")
    rest = line[end + 2 :].split(" ")
    if start < 0 or end < start or len(rest) < 20 or not rest[19].isdecimal() or rest[0] in "ZX":
        return None
    return Left(pid, int(rest[19]), uid, line[start + 1 : end], rest[0], is_killed(status))


def is_killed(status: str | None) -> bool:
    """Whether a SIGKILL is pending, by a process's status. Pure."""
    pending = 0
    for row in (status or "").splitlines():
        if row.startswith(("SigPnd:", "ShdPnd:")):
            try:
                pending |= int(row.split(":")[1], 16)
            except ValueError:
                continue
    return bool(pending & SIGKILL_BIT)


def job_of(cmdline: str) -> list[str]:
    """The job of a slurmstepd, whose title is `slurmstepd: [7.batch]`; none for another. Pure.

    >>> job_of("slurmstepd: [7.batch]"), job_of("slurmstepd infinity")
    (['7'], [])
    """
    told = re.search(r"\[(\d+)\.", cmdline)
    return [told[1]] if told is not None else []


def shared_memory(root: str) -> Iterator[tuple[str, int, int]]:
    """(path, uid, bytes) of what people have in /dev/shm, by its topmost entries."""
    folder = root + SHM
    for name in files.names(folder):
        path = f"{folder}/{name}"
        try:
            facts = os.lstat(path)
        except OSError:
            continue
        if is_person(facts.st_uid):
            size = facts.st_blocks * 512 if not stat.S_ISDIR(facts.st_mode) else _size(path)
            yield path, facts.st_uid, size


def _size(folder: str) -> int:
    """Bytes below a folder. Not os.walk, which calls itself for each level: 1,000 of them would end the check."""
    total = 0
    waiting = [folder]
    while waiting:
        base = waiting.pop()
        for name in files.names(base):
            try:
                facts = os.lstat(f"{base}/{name}")
            except OSError:
                continue
            if stat.S_ISDIR(facts.st_mode):
                waiting.append(f"{base}/{name}")
            else:
                total += facts.st_blocks * 512
    return total


def cgroups(root: str) -> Iterator[tuple[str, str]]:
    """(folder, job id) of every cgroup that Slurm made for a job."""
    top = root + _CGROUPS
    places = [top, *(f"{top}/{name}" for name in files.names(top))]
    for place in places:
        for name in files.names(place):
            if not name.startswith("slurm") and "slurmstepd" not in name:
                continue
            for base in (f"{place}/{name}", *(f"{place}/{name}/{user}" for user in files.names(f"{place}/{name}"))):
                for entry in files.names(base):
                    match = _JOB.match(entry)
                    if match is not None and os.path.isdir(f"{base}/{entry}"):
                        yield f"{base}/{entry}", match[1]


def members(cgroup: str) -> list[int]:
    """The processes in a cgroup and those below it."""
    found: list[int] = []
    for base, _, names in os.walk(cgroup):
        if "cgroup.procs" in names:
            text = files.text(f"{base}/cgroup.procs") or ""
            found += [int(word) for word in text.split() if word.isdecimal() and word != "0"]
    return found


def as_json(left: Left) -> list[Any]:
    """For a source's value."""
    return [left.pid, left.uid, left.name, left.state, left.killed]
