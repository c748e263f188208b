"""Whether the kernel killed a process of ours for want of memory. Standard library only.

A process that is killed so dies of SIGKILL, as after `kill -9`; the parent cannot tell the two apart. What can:

- the counter of the memory cgroup that Slurm made for this job, and for nothing else (ConstrainRAMSpace);
- the kernel's own message, which names the process, where this user may read it (/dev/kmsg, `dmesg_restrict`).

The node's count in /proc/vmstat rises for everybody's processes. It is told as a circumstance and proves nothing: in
280 drilled faults it once put a rank that somebody had killed down to what the kernel did to another job's.
"""

import os
import re
import time
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

NODE_WINDOW_S = 3.0
"""How far apart a rank's death and the rise of the node's count may be to be told together."""
_RECORD_BYTES = 8192
_RECORDS_MAX = 10_000
# "Killed process 4711 (python) total-vm:…" of the victim itself; since Linux 5.0 also "oom-kill:…,task_memcg=/…/job_12/
# step_0,task=python,pid=4711,uid=1000", which says whose cgroup it was in.
_VICTIM = re.compile(r"Killed process (?P<pid>\d+) \(|oom-kill:.*\btask_memcg=(?P<cgroup>[^,]*),.*\bpid=(?P<of>\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of a death by SIGKILL."""

    ours: bool
    """It was for want of memory, and of a process of this job."""
    text: str
    """In words; "" when nothing is known."""


NONE = Evidence(ours=False, text="")


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
    job_id: str,
    *,
    membership: Path = Path("/proc/self/cgroup"),
    root: Path = Path("/sys/fs/cgroup"),
    vmstat: Path = Path("/proc/vmstat"),
) -> tuple[Counter, ...]:
    """The counters of the job's cgroup, either version, if this process is in one; and of the node.

    A cgroup is the job's when its path says so, as Slurm's do: …/job_12/step_0/…. Without ConstrainRAMSpace a step
    stays in the cgroup of its slurmd, together with all other jobs of the node.
    """
    found = []
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        parts = path.strip("/").split("/")
        if f"job_{job_id}" not in parts:
            continue
        # Version 2 counts in every cgroup above, too: there the job's own has all of its steps.
        whole_job = "/".join(parts[: parts.index(f"job_{job_id}") + 1])
        if controllers == "":
            found.append(root / whole_job / "memory.events")
            # Where both versions are mounted.
            found.append(root / "unified" / whole_job / "memory.events")
        elif "memory" in controllers.split(","):
            found.append(root / "memory" / path.lstrip("/") / "memory.oom_control")
    own = tuple(Counter(path=path, whole_node=False) for path in found if path.exists())
    return (*own, Counter(path=vmstat, whole_node=True))


def victim(records: Iterable[str], *, pids: Collection[int], job_id: str) -> str:
    """The kernel's message that it killed one of `pids`, or anything in a cgroup of the job; "" when there is none.

    >>> victim(["3,1,2,-;Out of memory: Killed process 12 (python) total-vm:9kB"], pids={12}, job_id="7")
    'Out of memory: Killed process 12 (python) total-vm:9kB'
    >>> victim(["3,1,2,-;Out of memory: Killed process 12 (python) total-vm:9kB"], pids={1}, job_id="7")
    ''
    """
    for record in records:
        text = record.partition(";")[2].partition("\n")[0]
        match = _VICTIM.search(text)
        if match is None:
            continue
        named = int(match["pid"] or match["of"]) in pids
        if named or f"job_{job_id}" in (match["cgroup"] or "").split("/"):
            return text
    return ""


class KernelLog:
    """The kernel's messages from now on, as far as this user may read them."""

    def __init__(self, path: Path = Path("/dev/kmsg")) -> None:
        self._descriptor: int | None = None
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._descriptor, 0, os.SEEK_END)
        except OSError:
            self.close()

    def fresh(self) -> list[str]:
        """The records since the last call; none where they cannot be read."""
        found: list[str] = []
        while self._descriptor is not None and len(found) < _RECORDS_MAX:
            try:
                data = os.read(self._descriptor, _RECORD_BYTES)
            except BrokenPipeError:
                continue  # some were written over before they were read
            except OSError:
                break  # there are no more
            if not data:
                break
            found.append(data.decode(errors="replace"))
        return found

    def close(self) -> None:
        """Read no more."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class MemoryKills:
    """What the kernel has said lately."""

    def __init__(self, job_id: str, watched: tuple[Counter, ...] | None = None, log: KernelLog | None = None) -> None:
        self._job_id = job_id
        self._watched = counters(job_id) if watched is None else watched
        self._log = KernelLog() if log is None else log
        self._records: list[str] = []
        self._seen: deque[tuple[float, tuple[int, ...]]] = deque()
        self._began = self._counts()

    def _counts(self) -> tuple[int, ...]:
        return tuple(counter.read() for counter in self._watched)

    def begin(self) -> None:
        """A cycle begins: what was before has nothing to do with its ranks."""
        self._began = self._counts()
        self._seen.clear()
        self._log.fresh()
        self._records = []

    def look(self, now_s: float | None = None) -> None:
        """Read the node's count; about once a second."""
        at_s = time.monotonic() if now_s is None else now_s
        if self._seen and at_s - self._seen[-1][0] < 0.9:
            return
        self._seen.append((at_s, self._counts()))
        while self._seen[0][0] < at_s - NODE_WINDOW_S:
            self._seen.popleft()

    def evidence(self, pids: Collection[int], now_s: float | None = None) -> Evidence:
        """What is known of the death by SIGKILL of one of `pids`, just now."""
        at_s = time.monotonic() if now_s is None else now_s
        self._records += [record for record in self._log.fresh() if _VICTIM.search(record)]
        if said := victim(self._records, pids=pids, job_id=self._job_id):
            return Evidence(ours=True, text=f"the kernel killed it for want of memory; it said: {said}")
        counts = self._counts()
        lately = next((seen for moment_s, seen in self._seen if moment_s >= at_s - NODE_WINDOW_S), self._began)
        circumstance = NONE
        for counter, count, began, before in zip(self._watched, counts, self._began, lately, strict=True):
            since = before if counter.whole_node else began
            rise = f"oom_kill in {counter.path} rose from {since} to {count}"
            if count > since and not counter.whole_node:
                return Evidence(ours=True, text=f"the kernel killed it for want of memory: {rise}")
            if count > since:
                text = f"the kernel killed some process on this node for want of memory in these seconds ({rise}); "
                text += "whether it was this one is not known: the job has no memory cgroup, and no message names it"
                circumstance = Evidence(ours=False, text=text)
        return circumstance

    def close(self) -> None:
        """Watch no more."""
        self._log.close()
