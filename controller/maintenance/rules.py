"""What the twelve rules ask of maintenance, apart from the decisions that obey them: ownership, and proof. Pure."""

from collections.abc import Iterator

from trainmaster.controller import evidence, snapshot
from trainmaster.controller.acts import MARK, Act, Kind, Plan
from trainmaster.controller.maintenance import visit
from trainmaster.controller.maintenance.state import CAUSE, TIERS, Stage
from trainmaster.controller.memory import Memory
from trainmaster.controller.policy import Policy
from trainmaster.controller.snapshot import Snapshot
from trainmaster.slurm.values import Node

_NEEDS_THE_NODE = frozenset({Kind.OPERATE, Kind.REBOOT, Kind.CHECK})


def ownership(look: Snapshot, memory: Memory, plan: Plan) -> Iterator[tuple[Act, str]]:
    """I7: only what we drained is worked on, and only when nothing runs there any more."""
    for act in plan.acts:
        for name in act.nodes if act.kind in _NEEDS_THE_NODE else ():
            node, host = look.nodes.get(name), memory.maintenance.hosts.get(name)
            if node is None or host is None:
                yield act, f"{name} is in no train's hands"
            elif host.stage is Stage.FINISHING:
                continue  # it is in service again, and what is done now bears that
            elif not (snapshot.drained(node) or snapshot.down(node)) or not _carries_ours(memory, node):
                yield act, f"{name} has the reason {node.reason!r}"
            elif not snapshot.at_rest(node):
                yield act, f"something runs on {name}"


def _carries_ours(memory: Memory, node: Node) -> bool:
    """Whether its reason is the one that we wrote; what Slurm hangs onto it at a reboot does not count."""
    record = memory.nodes.get(node.name)
    mine = evidence.plain(record.reason) if record is not None else ""
    return mine.startswith(MARK) and evidence.plain(node.reason) == mine


def proof(memory: Memory, plan: Plan, policy: Policy) -> Iterator[tuple[Act, str]]:
    """I8: a host comes back as it was, or with all versions seen and three tiers passed since it was worked on."""
    for act in plan.acts:
        if act.kind is not Kind.RESUME or act.cause != CAUSE:
            continue
        for name in act.nodes:
            host = memory.maintenance.hosts.get(name)
            if host is None:
                yield act, f"{name} is in no train's hands"
            elif host.worked_at is None and host.untouched:
                continue
            elif host.inspected_at is None or (host.worked_at is not None and host.inspected_at < host.worked_at):
                yield act, f"the versions of {name} were not seen since it was worked on"
            elif host.tier < len(TIERS):
                yield act, f"{name} has passed {host.tier} of {len(TIERS)} tiers"
            elif lacks := _lacking(memory, policy, name):
                yield act, f"{name} has {lacks}"


def _lacking(memory: Memory, policy: Policy, name: str) -> str:
    """The versions that are not what the operations done there lead to."""
    registry, stack = policy.maintenance.registry, memory.maintenance.stacks.get(name)
    host = memory.maintenance.hosts[name]
    if registry is None:
        return ""
    wanted = {
        component: version
        for one in host.done
        if one in registry.operations
        for component, version in registry.operations[one].upgrades.items()
    }
    found = visit.lacking(wanted, stack.versions if stack is not None else {})
    return ", ".join(f"{component} {version or 'unseen'}" for component, version in found.items())
