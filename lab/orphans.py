"""Finds labs whose owner died without ending them, and ends them."""

from trainmaster.lab import cleanup, daemons, folders, netns, processes
from trainmaster.lab.cleanup import Ended
from trainmaster.lab.state import LabState


def is_orphan(state: LabState) -> bool:
    """Whether the process that the lab lives for has gone. A lab without an owner lives until `lab down`."""
    return state.owner is not None and not processes.alive(state.owner.pid, state.owner.start_time)


def sweep() -> tuple[Ended, ...]:
    """End every orphaned lab of this user, and what runs on of labs whose folder is gone. Every command begins so."""
    ended = []
    for state in folders.all_labs():
        if is_orphan(state):
            ended.append(cleanup.end(state))
    if cleanup.strays():
        processes.kill_all(cleanup.strays)
        daemons.reap()
    netns.sweep()
    return tuple(ended)
