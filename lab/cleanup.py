"""Ends everything that belongs to a lab and removes its folder; needs nothing but the folder, whoever started it."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainmaster.lab import daemons, folders, netns, processes
from trainmaster.lab.processes import Process
from trainmaster.lab.state import STATE_FILE, LabState


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What `end` did."""

    name: str
    folder: Path
    killed: int
    """Daemons, slurmstepds and processes of jobs."""


def belongs(environment: Mapping[str, str], state: LabState) -> bool:
    """Whether a process with this environment is a daemon of the lab or was started by one of its slurmstepds."""
    if environment.get(daemons.LAB_MARK) == str(state.folder):
        return True
    return processes.marked_node(environment, folder=state.folder, conf=state.conf) is not None


def members(state: LabState, sessions: frozenset[int] = frozenset()) -> tuple[Process, ...]:
    """Everything that runs in a lab now, on whatever node."""
    running = processes.snapshot()
    recorded = {(record.pid, record.start_time) for record in state.processes}
    seeds = {
        pid
        for pid, process in running.items()
        if (pid, process.start_time) in recorded or belongs(processes.environ(pid), state)
    }
    # Never the shells from which the lab is ended, even when it was started from one of its own jobs.
    foreign = processes.lineage(running) | {1}
    found = processes.closure(running, seeds - foreign, foreign=foreign, sessions=sessions)
    return tuple(running[pid] for pid in sorted(found))


def end(state: LabState, *, keep_folder: bool = False) -> Ended:
    """Kill all of a lab's processes, take its network down and remove its folder."""
    killed = processes.kill_all(lambda sessions: members(state, sessions))
    daemons.reap()
    if state.network is not None:
        netns.destroy(state.network.lab_id)
    folders.forget(state.name, state.folder)
    if keep_folder:
        (state.folder / STATE_FILE).unlink(missing_ok=True)
    else:
        shutil.rmtree(state.folder)
    return Ended(name=state.name, folder=state.folder, killed=len(killed))
