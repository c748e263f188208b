"""A node's network cable is cut, with or without the node behind it losing power. Needs a lab of namespaces."""

from trainmaster.errors import LabError
from trainmaster.lab import netns, processes
from trainmaster.lab.faults import node
from trainmaster.lab.faults.fault import Fault, Injected, Options, Target, nodes_of
from trainmaster.lab.running import Lab


def _cables(lab: Lab, names: tuple[str, ...]) -> list[netns.Cable]:
    if lab.network is None:
        raise LabError(
            "the nodes of this lab have no cables: they share the machine's loopback",
            hint="start the lab as root with its nodes in network namespaces; node-freeze is silent on any lab",
        )
    return [lab.network.cable(name) for name in names]


def _power_loss(lab: Lab, target: str, options: Options) -> Injected:
    names = nodes_of(lab, target)
    cables = _cables(lab, names)
    found = node.members(lab, names)
    pids = tuple(process.pid for process in found)
    if not found:
        raise LabError(f"nothing runs on {target}", hint="it is off already; node-return starts it again")
    if options.dry_run:
        summary = f"would cut the cable of {', '.join(names)} and kill {len(found)} processes"
        return Injected(fault="power-loss", target=target, summary=summary, pids=pids)
    # The order is the point: once the cable is cut, what the kernel sends for the dying sockets reaches nobody.
    for cable in cables:
        netns.cut(cable)
    killed = processes.kill_all(lambda sessions: node.members(lab, names, sessions))
    summary = f"cut the cable of {', '.join(names)}, then killed {node.counted(killed)}"
    return Injected(fault="power-loss", target=target, summary=summary, pids=tuple(process.pid for process in killed))


def _cut(lab: Lab, target: str, options: Options) -> Injected:
    names = nodes_of(lab, target)
    cables = _cables(lab, names)
    if options.dry_run:
        return Injected(fault="cable-cut", target=target, summary=f"would cut the cable of {', '.join(names)}")
    for cable in cables:
        netns.cut(cable)
    return Injected(fault="cable-cut", target=target, summary=f"cut the cable of {', '.join(names)}; the nodes run on")


def _mend(lab: Lab, target: str, options: Options) -> Injected:
    names = nodes_of(lab, target)
    cables = _cables(lab, names)
    if options.dry_run:
        return Injected(fault="cable-mend", target=target, summary=f"would plug in the cable of {', '.join(names)}")
    for cable in cables:
        netns.mend(cable)
    return Injected(fault="cable-mend", target=target, summary=f"plugged in the cable of {', '.join(names)}")


POWER_LOSS = Fault(
    name="power-loss",
    help="the node's cable is cut and then everything on it dies: its peers hear nothing, not even a reset",
    target=Target.NODES,
    inject=_power_loss,
    needs_root=True,
)
CUT = Fault(
    name="cable-cut",
    help="the node runs on but nothing passes its network cable any more",
    target=Target.NODES,
    inject=_cut,
    needs_root=True,
)
MEND = Fault(
    name="cable-mend",
    help="the node's network cable is plugged in again",
    target=Target.NODES,
    inject=_mend,
    needs_root=True,
)
