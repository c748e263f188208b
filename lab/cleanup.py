"""Ends everything that belongs to a lab and removes its folder; needs nothing but the folder, whoever started it."""

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainmaster.lab import daemons, fakehost, folders, jobgroups, netns, processes, throttle
from trainmaster.lab.processes import Process
from trainmaster.lab.state import LOCK_FILE, STATE_FILE, LabState, locked


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What `end` did."""

    name: str
    folder: Path
    killed: int
    """Daemons, slurmstepds and processes of jobs."""


def belongs(pid: int, state: LabState) -> bool:
    """Whether a process is a daemon of the lab, one of its slurmstepds, or was started by one."""
    if processes.environ(pid).get(daemons.LAB_MARK) == str(state.folder):
        return True
    return processes.node_of(pid, folder=state.folder, conf=state.conf) is not None


def members(state: LabState, sessions: frozenset[int] = frozenset()) -> tuple[Process, ...]:
    """Everything that runs in a lab now, on whatever node."""
    recorded = {(record.pid, record.start_time) for record in state.processes}

    def ours(process: Process) -> bool:
        return (process.pid, process.start_time) in recorded or belongs(process.pid, state)

    return _with_descendants(ours, sessions)


def strays(sessions: frozenset[int] = frozenset()) -> tuple[Process, ...]:
    """Everything of this user's labs whose folder somebody has removed while they ran."""

    def stray(process: Process) -> bool:
        folder = processes.environ(process.pid).get(daemons.LAB_MARK)
        if folder is None or Path(folder).exists():
            return False
        place = processes.PROC / str(process.pid)
        try:
            # Root reads everybody's environment, and the folders of a container or a chroot are only out of sight.
            same_user = place.stat().st_uid == os.geteuid()
            same_mounts = (place / "ns/mnt").readlink() == (processes.PROC / "self/ns/mnt").readlink()
            return same_user and same_mounts and (place / "root").samefile("/")
        except OSError:
            return False

    return _with_descendants(stray, sessions)


def _with_descendants(wanted: Callable[[Process], bool], sessions: frozenset[int]) -> tuple[Process, ...]:
    running = processes.snapshot()
    # Never the shells from which a lab is ended, even when it was started from one of its own jobs.
    foreign = processes.lineage(running) | {1}
    seeds = {pid for pid, process in running.items() if pid not in foreign and wanted(process)}
    found = processes.closure(running, seeds, foreign=foreign, sessions=sessions)
    return tuple(running[pid] for pid in sorted(found))


def end(state: LabState, *, keep_folder: bool = False) -> Ended:
    """Kill all of a lab's processes, take its network down and remove its folder.

    Two commands may find the same orphan; the second one waits for the first and then finds nothing to do.
    """
    killed = 0
    with contextlib.suppress(FileNotFoundError), locked(state.folder):
        if (state.folder / STATE_FILE).exists():
            killed = len(processes.kill_all(lambda sessions: members(state, sessions)))
            daemons.reap()
            if state.network is not None:
                netns.destroy(state.network.lab_id)
            fakehost.unmount_below(state.folder)
            jobgroups.forget(state.name)
            throttle.forget([throttle.name_of(state.name, node) for node in state.node_names])
            _clear(state.folder, keep=keep_folder)
    folders.forget(state.name, state.folder)
    return Ended(name=state.name, folder=state.folder, killed=killed)


def _clear(folder: Path, *, keep: bool) -> None:
    if not keep:
        for path in folder.iterdir():
            if path.is_dir():
                # Something left in there shows at the last rmdir.
                shutil.rmtree(path, ignore_errors=True)
            elif path.name not in (STATE_FILE, LOCK_FILE):
                path.unlink(missing_ok=True)
    # Last, so that a lab whose removal is interrupted is still known for one.
    (folder / STATE_FILE).unlink()
    if not keep:
        (folder / LOCK_FILE).unlink()
        folder.rmdir()
