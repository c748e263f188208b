"""A node works on, but slowly: a throttled GPU or CPU, a bad fan, a noisy neighbour."""

import sys

from trainmaster.errors import LabError, UsageError
from trainmaster.lab import daemons, throttle
from trainmaster.lab.faults.fault import Fault, Injected, Options, Target, nodes_of
from trainmaster.lab.faults.node import members
from trainmaster.lab.running import Lab

SHARE = 0.2
_ROLE = "duty-cycle"


def _slow(lab: Lab, target: str, options: Options) -> Injected:
    names = nodes_of(lab, target)
    share = SHARE if options.share is None else options.share
    if not 0 < share < 1:
        raise UsageError(f"a node cannot be left {share:g} of a CPU", hint="share is more than 0 and less than 1")
    found = {name: members(lab, (name,)) for name in names}
    if dead := [name for name in names if not found[name]]:
        raise LabError(f"nothing runs on {', '.join(dead)}", hint="node-return starts a dead node again")
    controller = throttle.available()
    pids = tuple(process.pid for of_node in found.values() for process in of_node)
    how = "by a control group" if controller else "by stopping them again and again"
    summary = f"{len(pids)} processes on {', '.join(names)} have {share:g} of a CPU a node from now on, {how}"
    if options.dry_run:
        return Injected(fault="node-slow", target=target, summary=f"would see to it: {summary}", pids=pids)
    for name in names:
        if controller is not None:
            group = throttle.name_of(lab.name, name)
            throttle.slow(controller, group, found[name], share=share)
            # What was started between the look and the move is not a child of the group yet.
            throttle.slow(controller, group, members(lab, (name,)), share=share)
        else:
            _begin_duty_cycle(lab, name, share)
    return Injected(fault="node-slow", target=target, summary=summary, pids=pids)


def _begin_duty_cycle(lab: Lab, name: str, share: float) -> None:
    _end_duty_cycle(lab, name)
    record = daemons.start(
        [sys.executable, "-m", "trainmaster.lab.duty_cycle", str(lab.folder), name, str(share)],
        role=_ROLE,
        node=name,
        # It acts on the node and is no part of it.
        env=daemons.environment(folder=lab.folder, conf=lab.conf, node_name=None),
        output=lab.folder / "log" / f"{_ROLE}-{name}.out",
        cwd=lab.folder / "log",
    )
    lab.keep(record)


def _end_duty_cycle(lab: Lab, name: str) -> bool:
    if not any((record.role, record.node) == (_ROLE, name) for record in lab.processes):
        return False
    lab.stop_process(_ROLE, name)
    return True


def _fast(lab: Lab, target: str, options: Options) -> Injected:
    names = nodes_of(lab, target)
    controller = throttle.available()
    if options.dry_run:
        return Injected(fault="node-fast", target=target, summary=f"would take the limit off {', '.join(names)}")
    healed = []
    for name in names:
        group = throttle.name_of(lab.name, name)
        limited = controller is not None and throttle.is_slow(controller, group)
        if controller is not None and limited:
            throttle.heal(controller, group)
        if _end_duty_cycle(lab, name) or limited:
            healed.append(name)
    if not healed:
        raise LabError(f"{target} is not slow")
    return Injected(fault="node-fast", target=target, summary=f"took the limit off {', '.join(healed)}")


SLOW = Fault(
    name="node-slow",
    help=f"everything on the node shares a part of one CPU (--share, {SHARE:g}); it answers, late",
    target=Target.NODES,
    inject=_slow,
    options=("share",),
)
FAST = Fault(
    name="node-fast",
    help="a slow node has all CPUs again",
    target=Target.NODES,
    inject=_fast,
)
