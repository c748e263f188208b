"""Whether the kernel killed a process of ours for want of memory: by its own counters. Standard library only.

A process that is killed so dies of SIGKILL, as after `kill -9`; only a counter tells the two apart. The step's memory
cgroup counts its own (Slurm with ConstrainRAMSpace); without one there is the whole node's count in /proc/vmstat, which
says so only if it rose in the very seconds in which the rank died.
"""

import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

NODE_WINDOW_S = 3.0
"""How far apart a rank's death and the rise of the node's count may be; other jobs' processes count there too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """A file in which a line `oom_kill N` counts."""

    path: Path
    whole_node: bool

    def read(self) -> int:
        """The count; 0 when it is not to be had."""
        try:
            for line in self.path.read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
        except (OSError, ValueError):
            pass
        return 0


def counters(
    *,
    membership: Path = Path("/proc/self/cgroup"),
    root: Path = Path("/sys/fs/cgroup"),
    vmstat: Path = Path("/proc/vmstat"),
) -> tuple[Counter, ...]:
    """The counters of this process's cgroup, either version, and of the node."""
    found = []
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            found.append(root / path.lstrip("/") / "memory.events")
            # Where both versions are mounted.
            found.append(root / "unified" / path.lstrip("/") / "memory.events")
        elif "memory" in controllers.split(","):
            found.append(root / "memory" / path.lstrip("/") / "memory.oom_control")
    own = tuple(Counter(path=path, whole_node=False) for path in found if path.exists())
    return (*own, Counter(path=vmstat, whole_node=True))


class MemoryKills:
    """What the counters have said lately."""

    def __init__(self, watched: tuple[Counter, ...] | None = None) -> None:
        self._watched = counters() if watched is None else watched
        self._seen: deque[tuple[float, tuple[int, ...]]] = deque()
        self._began = self._counts()

    def _counts(self) -> tuple[int, ...]:
        return tuple(counter.read() for counter in self._watched)

    def begin(self) -> None:
        """A cycle begins: what was counted before has nothing to do with its ranks."""
        self._began = self._counts()
        self._seen.clear()

    def look(self, now_s: float | None = None) -> None:
        """Read the node's count; about once a second."""
        at_s = time.monotonic() if now_s is None else now_s
        if self._seen and at_s - self._seen[-1][0] < 0.9:
            return
        self._seen.append((at_s, self._counts()))
        while self._seen[0][0] < at_s - NODE_WINDOW_S:
            self._seen.popleft()

    def evidence(self, now_s: float | None = None) -> str:
        """What shows that a process was killed for want of memory, in this cycle or just now; "" when nothing does."""
        at_s = time.monotonic() if now_s is None else now_s
        counts = self._counts()
        lately = next((seen for moment_s, seen in self._seen if moment_s >= at_s - NODE_WINDOW_S), self._began)
        for counter, count, began, before in zip(self._watched, counts, self._began, lately, strict=True):
            since = before if counter.whole_node else began
            if count > since:
                return (
                    f"the kernel killed it for want of memory: oom_kill in {counter.path} rose from {since} to {count}"
                )
        return ""
