"""What stands: what a controller would do at this look, by kind and mode, and which promises cannot be kept. Pure."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from trainmaster.controller import capacity
from trainmaster.controller.acts import Act, Kind, Refusal, Trip
from trainmaster.controller.capacity import Ledger
from trainmaster.controller.decide import decide
from trainmaster.controller.maintenance import visit
from trainmaster.controller.maintenance.catalogue import Catalogue, Operation
from trainmaster.controller.maintenance.state import Train
from trainmaster.controller.maintenance.units import Units, build
from trainmaster.controller.memory import Memory
from trainmaster.controller.policy import Mode, Policy
from trainmaster.controller.snapshot import Snapshot
from trainmaster.slurm.values import Node

_OF_TRAINS = (
    *(Kind.BOOK, Kind.DRAIN, Kind.OPERATE, Kind.INSPECT, Kind.CHECK, Kind.RESUME, Kind.UNBOOK),
    *(Kind.NOTIFY, Kind.REQUEUE),
)
"""Without any of these a train comes to a stand sooner or later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What a partition or a type of GPU was promised, and what there is."""

    group: str
    nodes: int
    failure_buffer: int
    size: int
    """All of its nodes, whatever their state."""
    available: int
    """In service now."""
    room: int
    """Nodes that planned work may take now; negative when the failure buffer is being used up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """All of it."""

    at: float
    acts: Mapping[Mode, tuple[Act, ...]]
    """By the mode of their kind: done, only said, or only remembered."""
    refused: tuple[Refusal, ...]
    trips: tuple[Trip, ...]
    promises: tuple[Promise, ...]
    cap: int
    """Nodes that may be out because of us at once."""
    out: int
    """Those that are."""
    troubles: tuple[str, ...] = field(default=())
    """What cannot come true as the policy stands, each in a sentence."""


def standing(look: Snapshot, memory: Memory, policy: Policy, now: float) -> Standing:
    """What stands at a look that `decide.observe` has taken in."""
    plan = decide(look, memory, policy, now)
    acts: dict[Mode, list[Act]] = {"act": [], "propose": [], "observe": []}
    for act in plan.acts:
        acts[policy.modes.of(act.kind)].append(act)
    promises = tuple(_promises(look, policy))
    troubles = [
        *_broken(promises),
        *_operations(look, policy),
        *_modes(memory, policy),
        *_late(look, memory, policy, now),
    ]
    return Standing(
        at=now,
        acts={mode: tuple(some) for mode, some in acts.items()},
        refused=plan.refused,
        trips=plan.trips,
        promises=promises,
        cap=capacity.cap(look, policy),
        out=len(capacity.out_because_of_us(look, memory)),
        troubles=tuple(troubles),
    )


def _promises(look: Snapshot, policy: Policy) -> Iterator[Promise]:
    for group, promised in sorted(policy.guarantee.items()):
        available = look.available(group)
        yield Promise(
            group=group,
            nodes=promised.nodes,
            failure_buffer=promised.failure_buffer,
            size=look.partition_size.get(group, 0),
            available=available,
            room=available - promised.nodes - promised.failure_buffer,
        )


def _broken(promises: tuple[Promise, ...]) -> Iterator[str]:
    """Promises that cannot be kept, the ones that never can apart from those that cannot now."""
    for one in promises:
        if not one.size:
            yield f"guarantee.{one.group}: there is no such partition or type of GPU with nodes here"
        elif one.nodes > one.size:
            yield f"guarantee.{one.group}: {one.nodes} nodes are promised, and there are {one.size} in all"
        elif one.available < one.nodes:
            yield f"guarantee.{one.group}: {one.nodes} nodes are promised, and {one.available} are in service"
        elif one.nodes + one.failure_buffer >= one.size:
            kept = f"{one.nodes} promised and {one.failure_buffer} for failures"
            yield f"guarantee.{one.group}: {kept} are all of {one.size} nodes: nothing planned is ever admitted"
        elif one.room < 0:
            yield (
                f"guarantee.{one.group}: {one.available} nodes are in service, and {one.nodes} are promised with "
                f"{one.failure_buffer} for failures: nothing planned is admitted until {-one.room} come back"
            )


def _operations(look: Snapshot, policy: Policy) -> Iterator[str]:
    """Operations for which no host, or no unit, could ever be taken out, were all nodes well."""
    catalogue = policy.maintenance.registry
    if catalogue is None:
        return
    units = build(look.leaf_of, policy.maintenance.units)
    well = {name: replace(node, state="IDLE") for name, node in look.nodes.items()}
    left = Ledger(look=replace(look, nodes=well, troubled=frozenset()), policy=policy, out=set(), window=0)
    likes: dict[tuple[object, ...], Node] = {}
    for node in well.values():
        likes.setdefault((node.partitions, node.gres, node.features), node)
    for name in catalogue.order:
        one = catalogue.operations[name]
        by_hosts = one.where.nodes != ""
        meant = [
            node
            for node in (well if by_hosts else {n.name: n for n in likes.values()}).values()
            if visit.applies(one.where, node)
        ]
        if not meant:
            yield f"operation {name}: it is for no host here"
        elif visit.shared(one):
            yield from _units(name, one, well, units, left)
        elif one.disruptive:
            against = [left.copy().refuses(node.name, planned=True, automatic=False) for node in meant]
            if all(against):
                yield f"operation {name}: can never be admitted: {against[0][1] if against[0] else ''}"


def _units(name: str, one: Operation, well: Mapping[str, Node], units: Units, left: Ledger) -> Iterator[str]:
    """Those whose hosts cannot all be out at once."""
    mine = {
        unit: hosts
        for unit, hosts in units.by_kind.get(one.scope, {}).items()
        if any(host in well and visit.applies(one.where, well[host]) for host in hosts)
    }
    if not mine:
        yield f"operation {name}: no {one.scope} of its hosts is known; list them under maintenance.units.{one.scope}"
    for unit, hosts in sorted(mine.items()):
        trial = left.copy()
        for host in hosts:
            if host in well and (against := trial.refuses(host, planned=True, automatic=False)):
                whole = f"{one.scope} {unit} with its {len(hosts)} hosts"
                yield f"operation {name}: {whole} can never be taken out: {against[1]}"
                break


def _modes(memory: Memory, policy: Policy) -> Iterator[str]:
    """Kinds that act while what has to follow does not."""
    of = policy.modes.of
    if of(Kind.DRAIN) == "act" and of(Kind.RESUME) != "act":
        yield f"modes: drain acts and resume is {of(Kind.RESUME)!r}: what is drained comes back by hand only"
    if of(Kind.DRAIN) == "act" and policy.returning.verify and of(Kind.VERIFY) != "act":
        yield f"modes: drain acts and verify is {of(Kind.VERIFY)!r}: nothing proves that a node may come back"
    if of(Kind.KEEP) == "act" and of(Kind.FREE) != "act":
        yield f"modes: keep acts and free is {of(Kind.FREE)!r}: nodes stay kept until their reservation ends by itself"
    for train in memory.maintenance.moving():
        still = [kind.value for kind in _needed(train, policy.maintenance.registry) if of(kind) != "act"]
        if still and not train.paused:
            yield f'train {train.name}: comes to a stand, since {", ".join(still)} are not in mode "act"'


def _needed(train: Train, catalogue: Catalogue | None) -> tuple[Kind, ...]:
    operations = catalogue.operations if catalogue is not None else {}
    reboots = any(name in operations and operations[name].executor.kind == "reboot" for name in train.carried)
    return (*_OF_TRAINS, Kind.REBOOT) if reboots else _OF_TRAINS


def _late(look: Snapshot, memory: Memory, policy: Policy, now: float) -> Iterator[str]:
    """Trains that need longer for the hosts that they have not come to than their cycle has left."""
    for train in memory.maintenance.moving():
        waiting = len(look.nodes) - train.visited
        cars = math.ceil(waiting / max(1, train.domain))
        needs_s = cars * visit.lasts_s(policy.maintenance, train.carried)
        if waiting > 0 and needs_s > train.deadline - now:
            has_h = max(0.0, train.deadline - now) / 3600.0
            yield (
                f"train {train.name}: {waiting} hosts are left, {train.domain} at once, which takes "
                f"{needs_s / 3600.0:.1f} h; {has_h:.1f} h of its cycle are left"
            )


def words(found: Standing) -> list[str]:
    """For people."""
    lines = [f"{found.out} nodes are out because of us, {found.cap} may be"]
    for one in found.promises:
        kept = f"{one.nodes} promised, {one.failure_buffer} kept for failures"
        lines.append(
            f"  {one.group}: {one.available} of {one.size} nodes in service, {kept}, {max(0, one.room)} may be taken"
        )
    said = {"act": "will", "propose": "would, but only proposes to", "observe": "would, but only observes:"}
    for mode, acts in found.acts.items():
        lines += [f"  {said[mode]} {act.kind} {','.join(act.targets)}: {act.why}" for act in acts]
    if not any(found.acts.values()):
        lines.append("  nothing is to be done now")
    lines += [f"  no {one.wanted} of {one.subject}, by {one.rule}: {one.why}" for one in found.refused]
    lines += [f"  the breaker stops drains of {one.name or 'everything'}: {one.why}" for one in found.trips]
    lines += [f"  cannot be: {one}" for one in found.troubles]
    return lines
