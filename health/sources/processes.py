"""Processes, in one walk: how many, zombies, who sleeps uninterruptibly, what slurmd may do, which are no job's."""

from __future__ import annotations

import os

from trainmaster.health import files, leftovers
from trainmaster.health.check import Place, Source
from trainmaster.health.leftovers import Left
from trainmaster.health.record import Any

STUCK_MAX = 50
STRAYS_MAX = 50


def read(place: Place) -> Any:
    """{"count", "threads", "pid_max", …, "zombies", "stuck": [[pid, start, name, where]], "slurmd": {limit: soft}}.

    "stepds" is how many slurmstepd run here: none, and no job does. "jobs" are their jobs, "people" the users who run
    anything but a service, and "left" the processes of theirs that are no job's and no login's.
    """
    root = place.root
    count = zombies = stepds = 0
    stuck: list[list[Any]] = []
    slurmd: dict[str, str] | None = None
    own = os.getpid()
    jobs: set[str] = set()
    stepd_pids: set[int] = set()
    theirs: list[tuple[int, Left, str]] = []
    for name in os.listdir(root + "/proc"):
        if not name.isdecimal() or int(name) == own:
            continue
        folder = f"{root}/proc/{name}"
        line = files.text(f"{folder}/stat", 1024)
        parsed = parse_stat(line or "")
        if parsed is None:
            continue
        count += 1
        command, state, parent, started = parsed
        if state == "Z":
            zombies += 1
            continue
        if command.startswith("slurmstepd"):
            stepds += command == "slurmstepd"
            stepd_pids.add(int(name))
            jobs.update(leftovers.job_of(files.text(f"{folder}/cmdline", 256) or ""))
        if state == "D" and len(stuck) < STUCK_MAX:
            stuck.append([int(name), started, command, files.text(f"{folder}/wchan", 128) or ""])
        if command == "slurmd" and slurmd is None:
            slurmd = limits(files.text(f"{folder}/limits") or "")
        try:
            uid = os.stat(folder).st_uid
        except OSError:
            continue
        if leftovers.is_person(uid):
            theirs.append((parent, Left(int(name), started, uid, command, state, False), folder))
    users = {left.uid for parent, left, _ in theirs if parent in stepd_pids}
    people = set(users)
    strays: list[list[Any]] = []
    for _, left, folder in theirs:
        cgroup = leftovers.cgroup_of(root, left.pid)
        if leftovers.is_service(cgroup):
            continue
        people.add(left.uid)
        # Who has a login session is at work here. One that was killed and does not die is told whosever it is.
        killed = leftovers.is_killed(files.text(f"{folder}/status", 4096))
        if "/user.slice/" not in cgroup and (killed or left.uid not in users) and len(strays) < STRAYS_MAX:
            strays.append(leftovers.as_json(left._replace(killed=killed)))
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
        "jobs": sorted(jobs),
        "people": sorted(people),
        "left": strays,
    }


def a_job_runs(root: str) -> bool:
    """Whether a slurmstepd runs here, by names alone."""
    return any(
        files.text(f"{root}/proc/{name}/comm", 64) == "slurmstepd"
        for name in files.names(root + "/proc")
        if name.isdecimal()
    )


def remember(value: Any) -> Any:
    """Whether a job ran here, for who asks before looking."""
    return {"stepds": value["stepds"]}


def parse_stat(line: str) -> tuple[str, str, int, int] | None:
    """Command, state, parent, start time of /proc/<pid>/stat. A command may hold blanks and parentheses. Pure.

    >>> parse_stat("7 (a) b) D 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0")
    ('a) b', 'D', 1, 4242)
    """
    start, end = line.find("("), line.rfind(")")
    rest = line[end + 2 :].split(" ", 20)
    if start < 0 or end < start or len(rest) < 20 or not (rest[19].isdecimal() and rest[1].isdecimal()):
        return None
    return line[start + 1 : end], rest[0], int(rest[1]), int(rest[19])


def limits(text: str) -> dict[str, str]:
    """The soft limits of /proc/<pid>/limits, whose columns have fixed places. Pure."""
    found = {}
    for line in text.splitlines()[1:]:
        name, values = line[:26].strip(), line[26:].split()
        if name and values:
            found[name] = values[0]
    return found


SOURCE = Source(
    name="proc.table",
    about="/proc/*/{stat,status,cgroup}, /proc/<slurmd>/limits, /proc/sys/{fs,kernel}",
    read=read,
    remember=remember,
)
