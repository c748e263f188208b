"""Processes of this machine as /proc shows them, and the few Linux calls that Python lacks. Standard library only."""

import ctypes
import os
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, however it dies (prctl(2), PR_SET_PDEATHSIG)."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def start_time(pid: int) -> int:
    """Field 22 of /proc/<pid>/stat; with the pid it names a process for ever. 0 when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return 0
    # The command name stands in parentheses and may itself hold blanks and parentheses.
    return int(stat.rpartition(")")[2].split()[19])


def state(pid: int) -> str:
    """The state of a process in one letter, as /proc/<pid>/stat has it; "?" when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return "?"


def lives(pid: int, started: int) -> bool:
    """Whether the process that once had this pid and start time still runs, and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    fields = stat.rpartition(")")[2].split()
    return fields[0] != "Z" and int(fields[19]) == started


def children(pid: int) -> list[int]:
    """The processes right below one, zombies too; none where the kernel does not tell (CONFIG_PROC_CHILDREN)."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def descendants(*roots: int) -> set[int]:
    """All processes below `roots`, zombies left out."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        # Bare system calls: this runs between a fault and the restart, over every process of the machine.
        try:
            descriptor = os.open(f"/proc/{entry.name}/stat", os.O_RDONLY)
        except OSError:
            continue
        try:
            stat = os.read(descriptor, 1024)
        except OSError:
            continue
        finally:
            os.close(descriptor)
        state, parent = stat.rpartition(b")")[2].split(maxsplit=2)[:2]
        if state != b"Z":
            children.setdefault(int(parent), []).append(int(entry.name))
    found: set[int] = set()
    queue = list(roots)
    while queue:
        for child in children.get(queue.pop(), ()):
            if child not in found:
                found.add(child)
                queue.append(child)
    return found


def cpu_s(*roots: int) -> float:
    """Processor seconds of processes, all that they started, and what of that has ended and was waited for."""
    ticks = 0
    for pid in {*roots, *descendants(*roots)} if roots else ():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except OSError:
            continue
        # Fields 14 to 17: its own time in user and kernel mode, and that of children it has waited for.
        ticks += sum(int(word) for word in stat.rpartition(")")[2].split()[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal (SigCgt of /proc/<pid>/status); without one it might die of it."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    except OSError:
        pass
    return False


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may already be gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def send_group(pgid: int, number: int) -> None:
    """Send a signal to a process group that may already be gone."""
    try:
        os.killpg(pgid, number)
    except ProcessLookupError:
        # Just forked and not yet the leader of a group of its own, or gone.
        send(pgid, number)
    except PermissionError:
        # Only a setuid member is left, which is not ours to stop.
        pass
