"""Bringing nodes back to service as an operator would, once what broke them is mended."""

import re
import time
from collections.abc import Callable, Sequence

from trainmaster.errors import LabError, SlurmError
from trainmaster.lab.running import Lab
from trainmaster.slurm import parse
from trainmaster.slurm.commands import Commands
from trainmaster.slurm.values import Node

_TIMEOUT_S = 60.0


def resume_if(lab: Lab, names: Sequence[str], wanted: Callable[[Node], bool]) -> tuple[str, ...]:
    """`State=RESUME` for those of the nodes that are wanted; returns their names."""
    chosen = tuple(node.name for node in Commands(env=lab.env).nodes(",".join(names)) if wanted(node))
    resumed = []
    for name in chosen:
        try:
            lab.run(["scontrol", "update", f"NodeName={name}", "State=RESUME"])
        except SlurmError as error:
            # It came back by itself since we looked; Slurm refuses to resume what is in service.
            if "Invalid node state" not in error.message:
                raise
        else:
            resumed.append(name)
    return tuple(resumed)


def bring_back(lab: Lab, names: Sequence[str], *, started_s: float) -> tuple[str, ...]:
    """Wait until nodes whose slurmd was just started are in service, resuming those that Slurm keeps DOWN.

    Args:
        lab: the lab.
        names: nodes.
        started_s: when the first slurmd was started, seconds since the epoch. Only a registration after it counts:
            slurmctld may still show a node as it was before it died.

    Returns:
        The nodes that had to be resumed: unless ReturnToService=2, those that rebooted before slurmctld missed them.
    """
    deadline = time.monotonic() + _TIMEOUT_S
    resumed: tuple[str, ...] = ()
    while True:
        waiting = set(names) - _registered_since(lab, started_s)
        if not waiting:
            resumed += resume_if(lab, names, is_down)
            # A node that was just resumed counts as silent until slurmctld has asked it once more.
            if all(answers(node) for node in Commands(env=lab.env).nodes(",".join(names))):
                return tuple(dict.fromkeys(resumed))
        if time.monotonic() > deadline:
            raise LabError(
                f"nodes did not come back within {_TIMEOUT_S:g} s: {', '.join(sorted(waiting or names))}",
                hint=f"their logs are under {lab.folder / 'nodes'}",
            )
        time.sleep(0.1)


def is_down(node: Node) -> bool:
    """Whether Slurm holds the node DOWN, with whatever flags."""
    return re.split(r"\W", node.state)[0] == "DOWN"


def answers(node: Node) -> bool:
    """Whether slurmctld has the node in reach and not DOWN."""
    return not is_down(node) and not node.state.endswith("*") and "NOT_RESPONDING" not in node.state


def _registered_since(lab: Lab, started_s: float) -> set[str]:
    """The nodes whose slurmd registered with slurmctld, having started at this time or later."""
    found = set()
    for line in lab.run(["scontrol", "-o", "show", "node"]).stdout.splitlines():
        name = re.search(r"NodeName=(\S+)", line)
        since = parse.epoch_s(match[1]) if (match := re.search(r"SlurmdStartTime=(\S+)", line)) else None
        # Slurm shows whole seconds.
        if name and since is not None and since >= int(started_s):
            found.add(name[1])
    return found
