"""Which processes of this machine belong to which node of a lab, and stopping or killing all of them together.

A lab's nodes share one machine, so "the node dies" means: this set of processes, and no other, is gone at once. A
process belongs to a node if

* its environment says so: slurmd is started with TRAINMASTER_LAB_NODE=<lab folder>:<node>; what slurmstepd starts has
  SLURMD_NODENAME=<node> and the lab's own SLURM_CONF, and so have its forks; or
* it is a slurmstepd in the folder in which that node's slurmd was started; or
* it descends from such a process; or
* it is in the session of such a process, where that session began inside the node.

So a daemon that a job leaves behind is found although its parent is now init, and also if it cleaned its environment or
made its own session. Only a process that did all three before the fault is missed: orphaned, in a session of its own
whose members are all unknown, and executed with an empty environment. Nodes in namespaces (lab/netns.py) miss nothing.
"""

import os
import signal
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from trainmaster.errors import LabError

MARK = "TRAINMASTER_LAB_NODE"
PROC = Path("/proc")

# Members are stopped before they are killed, so a hundred rounds mean that something forks faster than we can look.
_ROUNDS_MAX = 100
_GONE_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process; pid and start time (clock ticks since boot) together name it for ever."""

    pid: int
    start_time: int
    parent: int
    session: int
    # One letter of proc(5): R, S, D, T (stopped), Z (zombie) …
    state: str


def mark(folder: Path, node_name: str) -> str:
    """The value of TRAINMASTER_LAB_NODE for a node's slurmd."""
    return f"{folder}:{node_name}"


def parse_stat(text: str) -> Process:
    """A process from its /proc/<pid>/stat, whose second field may hold spaces and brackets.

    >>> parse_stat("7 (a (b) c) S 1 7 5 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0").session
    5
    """
    pid, _, rest = text.partition(" (")
    fields = rest[rest.rindex(")") + 2 :].split()
    return Process(
        pid=int(pid), state=fields[0], parent=int(fields[1]), session=int(fields[3]), start_time=int(fields[19])
    )


def look(pid: int) -> Process | None:
    """The process that has this pid now."""
    try:
        return parse_stat((PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace"))
    except (FileNotFoundError, ProcessLookupError):
        return None


def alive(pid: int, start_time: int) -> bool:
    """Whether this very process still runs; a zombie does not."""
    process = look(pid)
    return process is not None and process.start_time == start_time and process.state not in "ZX"


def own_pid(pid: int) -> int | None:
    """The pid by which a process knows itself, which in a pid namespace is another than ours."""
    try:
        status = (PROC / str(pid) / "status").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    return pid


def snapshot() -> dict[int, Process]:
    """Every process of the machine that is not a zombie, by pid."""
    found = (look(int(entry.name)) for entry in PROC.iterdir() if entry.name.isdecimal())
    return {process.pid: process for process in found if process is not None and process.state not in "ZX"}


def environ(pid: int) -> dict[str, str]:
    """The environment that a process was executed with; empty if it is not ours to read, or gone."""
    try:
        raw = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return {}
    pairs = (entry.partition("=") for entry in raw.decode(errors="replace").split("\0") if "=" in entry)
    return {name: value for name, _, value in pairs}


def marked_node(environment: Mapping[str, str], *, folder: Path, conf: Path) -> str | None:
    """The node of this lab that a process with this environment belongs to."""
    lab, _, node = environment.get(MARK, "").rpartition(":")
    if lab:
        return node if lab == str(folder) else None
    if environment.get("SLURM_CONF") == str(conf):
        return environment.get("SLURMD_NODENAME")
    return None


def node_of(pid: int, *, folder: Path, conf: Path) -> str | None:
    """The node of this lab that a process itself tells of; None also when it only descends from one that does.

    slurmstepd writes its title over its own environment: 22.05 spares the end of it, 24.11 nothing. It stays in the
    folder where the lab started its slurmd, <lab folder>/spool/<node>, and only it has both that and the title.
    """
    node = marked_node(environ(pid), folder=folder, conf=conf)
    if node is not None:
        return node
    process = PROC / str(pid)
    try:
        if (process / "cmdline").read_bytes().startswith(b"slurmstepd"):
            place = (process / "cwd").readlink()
            return place.name if place.parent == folder / "spool" else None
    except OSError:
        pass
    return None


def closure(
    processes: Mapping[int, Process], seeds: Iterable[int], *, foreign: Iterable[int], sessions: Iterable[int] = ()
) -> frozenset[int]:
    """The seeds with all that belongs to them: descendants, and everyone in a session that began among them.

    Args:
        processes: everything that runs, by pid.
        seeds: pids that are known to belong.
        foreign: pids that are known not to belong, whatever their parent or session.
        sessions: sessions that are known to belong, because a member that has gone meanwhile was in them.
    """
    outside = set(foreign)
    members = set(seeds) - outside
    strange = {processes[pid].session for pid in outside if pid in processes}
    while True:
        own = set(sessions) - strange
        for pid in members & processes.keys():
            session = processes[pid].session
            # The leader decides while it runs. A session whose leader has gone is the members' if no stranger is in it.
            if session in members or (session not in processes and session not in strange):
                own.add(session)
        more = {
            process.pid
            for process in processes.values()
            if process.pid not in members
            and process.pid not in outside
            and (process.parent in members or process.session in own)
        }
        if not more:
            return frozenset(members)
        members |= more


def members(
    node_names: Collection[str], *, folder: Path, conf: Path, sessions: Iterable[int] = ()
) -> tuple[Process, ...]:
    """Everything that runs on these nodes now.

    Args:
        node_names: nodes of one lab.
        folder: the lab's folder.
        conf: the lab's slurm.conf.
        sessions: as for `closure`.
    """
    running = snapshot()
    nodes = {pid: node_of(pid, folder=folder, conf=conf) for pid in running}
    seeds = {pid for pid, node in nodes.items() if node in node_names}
    # Other nodes never belong, nor do the shells from which a fault is injected, whatever session they share with it.
    foreign = {pid for pid, node in nodes.items() if node is not None and node not in node_names} | {1}
    foreign |= lineage(running) - seeds
    found = closure(running, seeds, foreign=foreign, sessions=sessions)
    return tuple(running[pid] for pid in sorted(found))


def send(process: Process, number: signal.Signals) -> bool:
    """Signal this very process, never one that got its pid later; False if it has gone."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        # With the descriptor open the pid cannot be handed out again: what we see now is what gets the signal.
        if not alive(process.pid, process.start_time):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def stop_all(find: Callable[[frozenset[int]], tuple[Process, ...]]) -> tuple[Process, ...]:
    """SIGSTOP every member, again and again until a look finds no new one; a stopped process cannot fork away.

    Args:
        find: returns the members; its argument is every session in which a member was seen so far.
    """
    stopped: dict[tuple[int, int], Process] = {}
    sessions: set[int] = set()
    for _ in range(_ROUNDS_MAX):
        fresh = [process for process in find(frozenset(sessions)) if (process.pid, process.start_time) not in stopped]
        if not fresh:
            return tuple(stopped.values())
        if any(process.pid == os.getpid() for process in fresh):
            raise LabError("a node cannot be stopped from inside itself", hint="inject the fault from outside the lab")
        for process in fresh:
            # A leader's own session is the only one that surely began with it.
            if process.session == process.pid:
                sessions.add(process.session)
            send(process, signal.SIGSTOP)
            stopped[process.pid, process.start_time] = process
        # Only then can the next look be trusted: until the signal takes effect a process may still fork.
        _await_stopped(fresh)
    raise LabError(
        f"processes still appeared after {_ROUNDS_MAX} rounds of stopping them: {len(stopped)} so far",
        hint="something on that node forks without end; `trainmaster lab down` ends the whole lab",
    )


def _await_stopped(members: Iterable[Process]) -> None:
    """Wait until SIGSTOP has taken effect, but not for a process that sits in the kernel."""
    deadline = time.monotonic() + 0.5
    for process in members:
        while (now := look(process.pid)) is not None and now.start_time == process.start_time and now.state in "RS":
            if time.monotonic() > deadline:
                return
            time.sleep(0.001)


def kill_all(find: Callable[[frozenset[int]], tuple[Process, ...]]) -> tuple[Process, ...]:
    """Take every member down as if at once: none runs between the first kill and the last. Returns those killed."""
    victims = stop_all(find)
    for process in victims:
        send(process, signal.SIGKILL)
    wait_gone(victims)
    return victims


def wait_gone(processes: Iterable[Process], *, timeout_s: float = _GONE_TIMEOUT_S) -> None:
    """Wait until the kernel has taken all of them down, sockets closed; LabError with those that stay."""
    deadline = time.monotonic() + timeout_s
    left = list(processes)
    while left := [process for process in left if alive(process.pid, process.start_time)]:
        if time.monotonic() > deadline:
            raise LabError(f"processes outlived SIGKILL for {timeout_s:g} s: {[process.pid for process in left]}")
        time.sleep(0.005)


def lineage(processes: Mapping[int, Process]) -> set[int]:
    """This process and all its ancestors."""
    found: set[int] = set()
    pid = os.getpid()
    while pid in processes and pid not in found:
        found.add(pid)
        pid = processes[pid].parent
    return found
