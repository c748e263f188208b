"""Control groups in which slurmd tracks the processes of jobs (proctrack/cgroup), as real clusters have it. Root only.

With them nothing that a job has started outlives it, not even what left its session and its parent. The freezer of
control groups version 1 is what it takes. Each lab gets a folder of its own in there, since slurmd names its groups
after the node alone and several labs may have a node n01.
"""

import contextlib
import ctypes
import os
from pathlib import Path

from trainmaster.errors import LabError

MOUNTS = Path("/proc/self/mounts")
_MS_BIND = 4096


def freezer(mounts: str) -> Path | None:
    """Where the text of /proc/self/mounts has the freezer of control groups version 1.

    >>> freezer("cgroup /sys/fs/cgroup/freezer cgroup rw,relatime,freezer 0 0")
    PosixPath('/sys/fs/cgroup/freezer')
    >>> freezer("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0") is None
    True
    """
    for line in mounts.splitlines():
        _, place, kind, options = line.split()[:4]
        if kind == "cgroup" and "freezer" in options.split(","):
            return Path(place)
    return None


def available() -> Path | None:
    """The freezer, if this user may make groups in it."""
    found = freezer(MOUNTS.read_text())
    return found if found is not None and os.geteuid() == 0 and os.access(found, os.W_OK) else None


def require() -> Path:
    """The freezer. Raises LabError where a lab cannot have control groups."""
    if (found := available()) is None:
        raise LabError(
            "this lab cannot have control groups: there is no freezer of control groups version 1 that this user may "
            "write to",
            hint="be root on a machine where /proc/self/mounts has one, or build the lab without --cgroups",
        )
    return found


def mount_point(folder: Path) -> Path:
    """What cgroup.conf calls CgroupMountpoint."""
    return folder / "cgroup"


def create(folder: Path, name: str) -> None:
    """Make a lab's group and mount it into the lab's folder. Raises LabError."""
    group = require() / _group(name)
    place = mount_point(folder) / "freezer"
    try:
        group.mkdir(exist_ok=True)
        place.mkdir(parents=True)
    except OSError as error:
        raise LabError(f"could not make control groups for the lab: {error}") from None
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(str(group).encode(), str(place).encode(), b"", _MS_BIND, None):
        raise LabError(f"could not mount {group} to {place}: {os.strerror(ctypes.get_errno())}")


def forget(name: str) -> None:
    """Remove a lab's groups, in which nothing runs any more; what was mounted is unmounted before."""
    found = available()
    group = found / _group(name) if found is not None else None
    if group is None or not group.is_dir():
        return
    for place, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            Path(place).rmdir()


def _group(name: str) -> str:
    return f"trainmaster-lab-{os.getuid()}-{name}"
