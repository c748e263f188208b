"""Evidence against nodes: `suspects.jsonl`, one line per fault that a node may be behind. Standard library only.

The same symptom has causes in the machine and in the program, so a line is evidence and no verdict: each suspect
carries 1/n of it, and a Python exception blames nobody. Whoever looks after the fleet adds the lines of many jobs up.
"""

import json
import os
import signal
from pathlib import Path

from trainmaster.launcher import drills
from trainmaster.launcher.supervise.cycle import Cycle
from trainmaster.launcher.supervise.decide import Decision
from trainmaster.launcher.supervise.links import nodes_of

FILE = "suspects.jsonl"
_MACHINE_SIGNALS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL)
"""Deaths that memory, a CPU or a driver can cause as well as the program."""


def blamed(cycle: Cycle, decision: Decision) -> tuple[str, tuple[str, ...]]:
    """Symptom and suspected nodes of a cycle's end; no nodes when it says nothing of machines. Pure."""
    if cycle.lost:
        return next(iter(cycle.lost.values())), nodes_of(cycle.lost)
    if decision.cause == "hang":
        return "hang", tuple(dict.fromkeys(node for _, node in cycle.suspects))
    failure = decision.failure
    if decision.cause == "exclude_node":
        return "exclude_node", nodes_of(decision.exclude)
    if failure is not None and not failure.raised and -failure.code in _MACHINE_SIGNALS:
        return signal.Signals(-failure.code).name, (failure.node,)
    return "", ()


def note(run_dir: Path, cycle: Cycle, decision: Decision, *, attempt: int, epoch_s: float) -> None:
    """Add the evidence of a cycle's end, if there is any, to the run folder."""
    symptom, nodes = blamed(cycle, decision)
    add(run_dir, symptom, nodes, attempt=attempt, cycle=cycle.number, epoch_s=epoch_s)


def add(run_dir: Path, symptom: str, nodes: tuple[str, ...], *, attempt: int, cycle: int, epoch_s: float) -> None:
    """Add one piece of evidence against some nodes; nothing when no node is left that no drill was about."""
    rehearsed = drills.nodes_of(run_dir, epoch_s=epoch_s)
    nodes = tuple(node for node in nodes if node not in rehearsed)
    if not nodes:
        return
    weight = round(1 / len(nodes), 4)
    line = {
        "epoch_s": epoch_s,
        "attempt": attempt,
        "cycle": cycle,
        "symptom": symptom,
        "suspects": [{"node": node, "weight": weight} for node in nodes],
    }
    try:
        descriptor = os.open(run_dir / FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, json.dumps(line).encode() + b"\n")
        finally:
            os.close(descriptor)
    except OSError:
        pass  # evidence is worth less than the restart that a full disk would otherwise stop
