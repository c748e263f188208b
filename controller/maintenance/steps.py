"""What the hosts that a train has in hand need next: operations in order, inspection, verification, their return. Pure.

All hosts go through operations in one order, and one that works on a shared switch waits until each of its hosts has
come to it. Since nobody waits for an operation that another host has before it, they cannot wait in a circle.
"""

from collections.abc import Iterable, Mapping, Sequence

from trainmaster.controller import snapshot
from trainmaster.controller.acts import Act, Kind
from trainmaster.controller.maintenance import stacks, visit
from trainmaster.controller.maintenance.catalogue import Catalogue
from trainmaster.controller.maintenance.state import CAUSE, TIERS, Host, Maintenance, Stage, reservation_name
from trainmaster.controller.maintenance.units import Units
from trainmaster.controller.memory import Memory
from trainmaster.controller.policy import Policy
from trainmaster.controller.snapshot import Snapshot

_LONG_S = 30 * 86400.0
"""Commands have a deadline of their own; an intent must not be given up before it."""


def decide(look: Snapshot, memory: Memory, policy: Policy, catalogue: Catalogue, units: Units) -> list[Act]:
    """The next act of every host that is ready for one."""
    state = memory.maintenance
    acts: list[Act] = []
    inspect: list[Host] = []
    returning: dict[tuple[str, str], list[Host]] = {}
    working: dict[str, str] = {}
    finishing: list[Host] = []
    for host in state.in_hand():
        if f"node:{host.name}" in memory.open_targets or host.name not in look.nodes:
            continue
        reason = reason_of(memory, host.name)
        if host.stage is Stage.WORKING:
            working[host.name] = next_operation(look, state, catalogue, host)
        elif host.stage is Stage.INSPECTING:
            inspect.append(host)
        elif host.stage is Stage.CHECKING:
            acts.append(_check(host, reason))
        elif host.stage is Stage.FINISHING:
            finishing.append(host)
        elif host.stage is Stage.RETURNING:
            returning.setdefault((reason, _label(look, state, catalogue, host)), []).append(host)
    acts += _operate(look, memory, catalogue, units, working)
    for most, some in _bunches(inspect, policy.maintenance.inventory_max):
        acts.append(_inspect(some, most, look))
    for (reason, label), hosts in sorted(returning.items()):
        acts.append(_label_act(hosts, label) if label else _return(hosts, reason))
    return acts + _finish(look, memory, catalogue, finishing)


def _finish(look: Snapshot, memory: Memory, catalogue: Catalogue, hosts: Sequence[Host]) -> list[Act]:
    """Scripts that Slurm starts, for which a host has to be in service; then its reservation lets it go."""
    acts: list[Act] = []
    cars: dict[tuple[str, int], list[Host]] = {}
    for host in hosts:
        scripts = next_operation(look, memory.maintenance, catalogue, host, by_slurm=True)
        if scripts:
            timeout_s = catalogue.operations[scripts].timeout_s
            acts.append(_operation(Kind.OPERATE, scripts, (host,), "", timeout_s))
        else:
            cars.setdefault((host.train, host.car), []).append(host)
    for (train, car), some in sorted(cars.items()):
        acts.append(
            Act(
                kind=Kind.UNBOOK,
                cause=CAUSE,
                why=f"{len(some)} hosts are back",
                attempt=f"{max(host.since for host in some):.3f}",
                nodes=tuple(sorted(host.name for host in some)),
                train=train,
                car=car,
                reservation=reservation_name(train, car),
            )
        )
    return acts


def reason_of(memory: Memory, name: str) -> str:
    """The reason that our drain of a node carries; "" when none of ours is known."""
    record = memory.nodes.get(name)
    return record.reason if record is not None else ""


def next_operation(
    look: Snapshot, state: Maintenance, catalogue: Catalogue, host: Host, *, by_slurm: bool = False
) -> str:
    """The operation that a host has to go through now; "" when there is none left.

    `by_slurm`: of those that Slurm starts, for which the host has to be in service again; otherwise of all others.
    """
    stack = state.stacks.get(host.name)
    # What a host has done in this cycle for an operation that upgrades nothing stands in `done` as well.
    due = visit.due(
        catalogue,
        catalogue.order,
        look.nodes[host.name],
        state.carried(),
        seen=stack.versions if stack is not None else {},
        done=host.done,
    )
    due = tuple(name for name in due if (catalogue.operations[name].executor.kind == "srun") is by_slurm)
    return due[0] if due else ""


def _operate(
    look: Snapshot, memory: Memory, catalogue: Catalogue, units: Units, working: Mapping[str, str]
) -> list[Act]:
    """Operations on hosts that are ready for them, and what hosts share once all of its hosts are."""
    state = memory.maintenance
    acts: list[Act] = []
    shared = _shared(catalogue, units, working)
    waits = {(one.scope, unit) for operation, unit in shared for one in (catalogue.operations[operation],)}
    finished: list[Host] = []
    for name, operation in sorted(working.items()):
        host = state.hosts[name]
        if name not in state.stacks:
            # What is there decides what is due.
            finished.append(host)
            continue
        if not operation:
            # Nothing is due here any more; but it stays out while what it shares with others is still to be worked on.
            if not any(units.of(kind, name) == unit for kind, unit in waits):
                finished.append(host)
            continue
        one = catalogue.operations[operation]
        if visit.shared(one) and units.of(one.scope, name):
            continue
        kind = Kind.REBOOT if one.executor.kind == "reboot" else Kind.OPERATE
        acts.append(_operation(kind, operation, (host,), reason_of(memory, name), one.timeout_s))
    for most, some in _bunches(finished, 256):
        acts.append(_inspect(some, most, look))
    for operation, unit in shared:
        one = catalogue.operations[operation]
        members = [name for name in units.hosts(one.scope, unit) if name in look.nodes]
        if all(_ready(look, state, working, name, operation) for name in members):
            hosts = [state.hosts[name] for name in members if working.get(name) == operation]
            acts.append(
                _operation(Kind.OPERATE, operation, hosts, reason_of(memory, hosts[0].name), one.timeout_s, unit=unit)
            )
    return acts


def _shared(catalogue: Catalogue, units: Units, working: Mapping[str, str]) -> list[tuple[str, str]]:
    """The shared operations that hosts have come to, each with its unit."""
    found: dict[tuple[str, str], None] = {}
    for name, operation in sorted(working.items()):
        if operation and visit.shared(catalogue.operations[operation]):
            unit = units.of(catalogue.operations[operation].scope, name)
            if unit:
                found[operation, unit] = None
    return list(found)


def _ready(look: Snapshot, state: Maintenance, working: Mapping[str, str], name: str, operation: str) -> bool:
    """Whether what is shared may be worked on as far as this host goes: it waits for it, or nothing runs there."""
    if working.get(name) in (operation, ""):
        return True
    host = state.hosts.get(name)
    if host is not None:
        return False  # it is still on its way here, or was here and is being verified
    node = look.nodes[name]
    return not snapshot.in_service(node) and snapshot.at_rest(node)


def _operation(
    kind: Kind, operation: str, hosts: Sequence[Host], reason: str, timeout_s: float, *, unit: str = ""
) -> Act:
    first = hosts[0]
    names = tuple(sorted(host.name for host in hosts))
    where = f"{unit}, " if unit else ""
    return Act(
        kind=kind,
        cause=CAUSE,
        why=f"{operation} on {where}{names[0] if len(names) == 1 else f'{len(names)} hosts'}",
        attempt=f"{first.train}:{first.car}:{operation}:{len(first.done)}:{first.since:.0f}",
        nodes=names,
        train=first.train,
        car=first.car,
        work=f"{operation}@{unit}" if unit else operation,
        expected_reason=reason,
        deadline_s=timeout_s if kind is Kind.REBOOT else _LONG_S,
    )


def _check(host: Host, reason: str) -> Act:
    tier = TIERS[host.tier]
    return Act(
        kind=Kind.CHECK,
        cause=CAUSE,
        why=f"{tier} verification after maintenance",
        attempt=f"{host.train}:{host.car}:{tier}:{host.inspected_at or 0:.0f}",
        nodes=(host.name,),
        train=host.train,
        car=host.car,
        work=tier,
        expected_reason=reason,
        deadline_s=_LONG_S,
    )


def _bunches(hosts: Sequence[Host], most: int) -> Iterable[tuple[int, Sequence[Host]]]:
    for start in range(0, len(hosts), most):
        yield start, hosts[start : start + most]


def _inspect(hosts: Sequence[Host], number: int, look: Snapshot) -> Act:
    names = tuple(sorted(host.name for host in hosts))
    last = max(host.since for host in hosts)
    return Act(
        kind=Kind.INSPECT,
        cause=CAUSE,
        why=f"which versions are on {snapshot.fold(names)}"[:180],
        attempt=f"{hosts[0].train}:{hosts[0].car}:{number}:{last:.3f}",
        nodes=names,
        train=hosts[0].train,
        deadline_s=_LONG_S,
    )


def _label(look: Snapshot, state: Maintenance, catalogue: Catalogue, host: Host) -> str:
    """The feature that a host lacks; "" when it has the right one."""
    stack = state.stacks.get(host.name)
    wanted = stacks.label(catalogue, stack.versions) if stack is not None else ""
    node = look.nodes[host.name]
    return wanted if wanted and wanted not in node.features else ""


def _label_act(hosts: Sequence[Host], label: str) -> Act:
    names = tuple(sorted(host.name for host in hosts))
    return Act(
        kind=Kind.LABEL,
        cause=CAUSE,
        why=f"{len(names)} hosts have the stack {label}",
        attempt=f"{label}:{max(host.since for host in hosts):.3f}",
        nodes=names,
        train=hosts[0].train,
        work=label,
    )


def _return(hosts: Sequence[Host], reason: str) -> Act:
    return _resume(hosts, reason, why=f"train {hosts[0].train}: versions seen, {len(TIERS)} tiers passed")


def give_back(hosts: Sequence[Host], reason: str, why: str) -> Act:
    """Hosts to which nothing was done, let back as they are."""
    return _resume(hosts, reason, why=f"untouched: {why}"[:180], mark="untouched:")


def _resume(hosts: Sequence[Host], reason: str, *, why: str, mark: str = "") -> Act:
    return Act(
        kind=Kind.RESUME,
        cause=CAUSE,
        why=why,
        attempt=f"{mark}{hosts[0].train}:{hosts[0].car}:{max(host.since for host in hosts):.3f}",
        nodes=tuple(sorted(host.name for host in hosts)),
        train=hosts[0].train,
        car=hosts[0].car,
        expected_reason=reason,
    )
