"""Whole nodes die, freeze, thaw and come back."""

import signal
import time

from trainmaster.errors import LabError
from trainmaster.lab import netns, processes
from trainmaster.lab.faults import service
from trainmaster.lab.faults.fault import Fault, Injected, Options, Target, nodes_of
from trainmaster.lab.processes import Process
from trainmaster.lab.running import Lab


def members(lab: Lab, names: tuple[str, ...], sessions: frozenset[int] = frozenset()) -> tuple[Process, ...]:
    """Everything that runs on these nodes now."""
    return processes.members(names, folder=lab.folder, conf=lab.conf, sessions=sessions)


def counted(found: tuple[Process, ...]) -> str:
    """How many processes, in words."""
    return f"{len(found)} process{'' if len(found) == 1 else 'es'}"


def _death(lab: Lab, target: str, options: Options) -> Injected:
    names = nodes_of(lab, target)
    found = members(lab, names)
    if not found:
        raise LabError(f"nothing runs on {target}", hint="it is dead already; node-return starts it again")
    if options.dry_run:
        return _injected("node-death", target, f"would kill {len(found)} processes", found)
    killed = processes.kill_all(lambda sessions: members(lab, names, sessions))
    return _injected("node-death", target, f"killed {counted(killed)} at once", killed)


def _freeze(lab: Lab, target: str, options: Options) -> Injected:
    names = nodes_of(lab, target)
    found = members(lab, names)
    if not found:
        raise LabError(f"nothing runs on {target}", hint="it is dead already; node-return starts it again")
    if options.dry_run:
        return _injected("node-freeze", target, f"would stop {len(found)} processes", found)
    stopped = processes.stop_all(lambda sessions: members(lab, names, sessions))
    return _injected("node-freeze", target, f"stopped {len(stopped)} processes; nothing was reset", stopped)


def _thaw(lab: Lab, target: str, options: Options) -> Injected:
    names = nodes_of(lab, target)
    frozen = tuple(process for process in members(lab, names) if process.state == "T")
    if not frozen:
        raise LabError(f"nothing on {target} is frozen")
    if options.dry_run:
        return _injected("node-thaw", target, f"would continue {len(frozen)} processes", frozen)
    for process in frozen:
        processes.send(process, signal.SIGCONT)
    return _injected("node-thaw", target, f"continued {len(frozen)} processes", frozen)


def _return(lab: Lab, target: str, options: Options) -> Injected:
    names = nodes_of(lab, target)
    running = members(lab, names)
    if running:
        raise LabError(
            f"{len(running)} processes still run on {target}",
            hint="node-death ends them, node-thaw wakes a frozen node",
        )
    if options.dry_run:
        return _injected("node-return", target, f"would start slurmd on {', '.join(names)}", ())
    # slurmctld knows a boot by its time, in whole seconds, being later than the node's last answer.
    time.sleep(1.0 - time.time() % 1.0)
    started_s = time.time()
    for name in names:
        if lab.network is not None:
            netns.mend(lab.network.cable(name))
        lab.start_slurmd(name, booted=True)
    resumed = service.bring_back(lab, names, started_s=started_s)
    how = f"; resumed {', '.join(resumed)}" if resumed else ""
    return _injected("node-return", target, f"started slurmd on {', '.join(names)}{how}", members(lab, names))


def _injected(fault: str, target: str, summary: str, hit: tuple[Process, ...]) -> Injected:
    return Injected(fault=fault, target=target, summary=summary, pids=tuple(process.pid for process in hit))


DEATH = Fault(
    name="node-death",
    help="slurmd, its slurmstepds and every process of every job on the node die at once; peers get a TCP reset",
    target=Target.NODES,
    inject=_death,
)
FREEZE = Fault(
    name="node-freeze",
    help="every process on the node stops (SIGSTOP); its connections stay open and silent",
    target=Target.NODES,
    inject=_freeze,
)
THAW = Fault(
    name="node-thaw",
    help="a frozen node goes on (SIGCONT)",
    target=Target.NODES,
    inject=_thaw,
)
RETURN = Fault(
    name="node-return",
    help="a dead node boots: slurmd starts, and the node is resumed where Slurm holds it DOWN",
    target=Target.NODES,
    inject=_return,
)
