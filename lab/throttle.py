"""The kernel's limit on how much CPU a lab node gets: one control group a node, version 1 or 2. Root only.

What a process of the group starts is in the group too, so a node stays slow whatever runs on it later.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trainmaster.errors import LabError
from trainmaster.lab.processes import Process

MOUNTS = Path("/proc/self/mounts")
_PERIOD_US = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """Where control groups with a CPU limit are made."""

    root: Path
    version: int


def controller(mounts: str) -> Controller | None:
    """The CPU controller that the text of /proc/self/mounts tells of; version 2 must have it switched on.

    >>> controller("cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0").version
    1
    """
    for line in mounts.splitlines():
        _, place, kind, options = line.split()[:4]
        if kind == "cgroup" and "cpu" in options.split(","):
            return Controller(root=Path(place), version=1)
        if kind == "cgroup2":
            try:
                if "cpu" in (Path(place) / "cgroup.subtree_control").read_text().split():
                    return Controller(root=Path(place), version=2)
            except OSError:
                continue
    return None


def available() -> Controller | None:
    """The CPU controller, if this user may make groups in it."""
    found = controller(MOUNTS.read_text())
    return found if found is not None and os.geteuid() == 0 and os.access(found.root, os.W_OK) else None


def name_of(lab: str, node: str) -> str:
    """A group's name: of one lab's one node."""
    return f"trainmaster-lab-{os.getuid()}-{lab}-{node}"


def slow(found: Controller, name: str, processes: Iterable[Process], *, share: float) -> None:
    """Give these processes, and what they start, `share` of one CPU together. Raises LabError."""
    group = found.root / name
    try:
        group.mkdir(exist_ok=True)
        quota_us = max(1000, int(share * _PERIOD_US))
        if found.version == 2:
            (group / "cpu.max").write_text(f"{quota_us} {_PERIOD_US}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota_us))
    except OSError as error:
        raise LabError(f"could not limit the CPU of {name}: {error}") from None
    _move(group, (process.pid for process in processes))


def is_slow(found: Controller, name: str) -> bool:
    """Whether a node has a limit."""
    return (found.root / name).is_dir()


def heal(found: Controller, name: str) -> None:
    """Take the limit off, and put the processes back among all others."""
    group = found.root / name
    # Processes may start while they are moved; without a limit that does no harm, and the next round finds them.
    for _ in range(100):
        try:
            pids = [int(word) for word in (group / "cgroup.procs").read_text().split()]
            if not pids:
                group.rmdir()
                return
        except FileNotFoundError:
            return
        except OSError:
            pids = []
        _move(found.root, pids)
    raise LabError(f"processes still appear in {group}", hint="`node-death` ends them")


def forget(names: Iterable[str]) -> None:
    """Remove the groups of nodes on which nothing runs any more."""
    found = available()
    if found is None:
        return
    for name in names:
        try:
            (found.root / name).rmdir()
        except OSError:
            continue  # there was none


def _move(group: Path, pids: Iterable[int]) -> None:
    for pid in pids:
        try:
            (group / "cgroup.procs").write_text(str(pid))
        except ProcessLookupError:
            continue  # it has ended meanwhile
        except OSError as error:
            raise LabError(f"could not move process {pid} into {group}: {error}") from None
