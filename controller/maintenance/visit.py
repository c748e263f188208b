"""Which operations a host has due, in which order, and what they need. Pure."""

from collections.abc import Collection, Mapping, Sequence

from trainmaster.controller import snapshot
from trainmaster.controller.maintenance import versions
from trainmaster.controller.maintenance.catalogue import Catalogue, Operation, Where
from trainmaster.controller.maintenance.limits import MaintenancePolicy
from trainmaster.slurm.values import Node


def applies(where: Where, node: Node) -> bool:
    """Whether an operation is for this host.

    >>> applies(Where(gpus=("h100",)), Node(name="n1", gres="gpu:h100:8(S:0-1)"))
    True
    """
    return (
        (not where.partitions or not set(where.partitions).isdisjoint(node.partitions))
        and (not where.features or not set(where.features).isdisjoint(node.features))
        and (not where.gpus or not set(where.gpus).isdisjoint(snapshot.gpu_types(node.gres)))
        and (not where.nodes or node.name in snapshot.members(where.nodes))
    )


def required(catalogue: Catalogue, node: Node, operations: Collection[str]) -> dict[str, str]:
    """By component, the version that has to be seen on the host before it may return."""
    found: dict[str, str] = {}
    for name in operations:
        one = catalogue.operations.get(name)
        if one is not None and applies(one.where, node):
            found.update(one.upgrades)
    return found


def lacking(wanted: Mapping[str, str], seen: Mapping[str, str]) -> dict[str, str]:
    """Of what is required, that which was not seen: by component, the version there, "" where none is known."""
    return {
        name: seen.get(name, "")
        for name, version in wanted.items()
        if name not in seen or not versions.same(seen[name], version)
    }


def due(
    catalogue: Catalogue,
    order: Sequence[str],
    node: Node,
    operations: Collection[str],
    *,
    seen: Mapping[str, str],
    done: Sequence[str] = (),
) -> tuple[str, ...]:
    """The operations that a host has to go through now, in order.

    Args:
        catalogue: The registry.
        order: `catalogue.order` of it.
        node: The host.
        operations: Those that are under way: of the trains, without those that were taken off.
        seen: By component, the version last seen on the host.
        done: What was done there in this visit already, in its order.
    """
    found: list[str] = []
    at = {name: index for index, name in enumerate(done)}
    rebooted_at = max((at[name] for name in at if _reboots(catalogue, name)), default=-1)
    wants_reboot = False
    for name in order:
        one = catalogue.operations[name]
        if name in at and one.needs_reboot and at[name] > rebooted_at:
            wants_reboot = True
        if name not in operations or not applies(one.where, node):
            continue
        if one.executor.kind == "reboot" and not one.upgrades:
            # It serves those before it; by itself nobody needs it.
            if wants_reboot:
                found.append(name)
                wants_reboot = False
            continue
        if name in at:
            continue
        if one.upgrades and not lacking(one.upgrades, seen):
            continue
        found.append(name)
        wants_reboot = wants_reboot or one.needs_reboot
    return tuple(found)


def _reboots(catalogue: Catalogue, name: str) -> bool:
    return name in catalogue.operations and catalogue.operations[name].executor.kind == "reboot"


def duration_s(catalogue: Catalogue, operations: Collection[str]) -> float:
    """How long they take one after the other."""
    return sum(catalogue.operations[name].duration_s for name in operations if name in catalogue.operations)


def lasts_s(rules: MaintenancePolicy, operations: Collection[str]) -> float:
    """For how long one host is out, by what the catalogue and the limits of the three tiers say."""
    checks = rules.checks
    tiers = ((checks.quick_s, checks.quick), (checks.medium_s, checks.medium), (checks.soak_s, checks.soak))
    verified_s = sum(limit_s for limit_s, words in tiers if words)
    return (duration_s(rules.registry, operations) if rules.registry is not None else 0.0) + verified_s


def left_running_s(rules: MaintenancePolicy) -> float:
    """How long a command of which nobody knows any more, since the journal was lost, may still be at work on a host."""
    operations = rules.registry.operations.values() if rules.registry is not None else ()
    return max((one.timeout_s for one in operations if one.executor.kind in ("command", "ansible")), default=0.0)


def shared(operation: Operation) -> bool:
    """Whether it works on what several hosts share, so that all of them have to be out."""
    return operation.scope != "node" and operation.disruptive
