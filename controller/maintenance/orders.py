"""What a person may ask of trains, and what becomes of it. Pure."""

from dataclasses import replace
from typing import Annotated, Literal

from msgspec import Meta, Struct

from trainmaster.controller.maintenance import domains, visit
from trainmaster.controller.maintenance.state import Maintenance, Train, put_train
from trainmaster.controller.maintenance.units import build
from trainmaster.controller.memory import Memory
from trainmaster.controller.policy import Policy
from trainmaster.controller.snapshot import Snapshot
from trainmaster.errors import UsageError

NAME = r"^[a-z0-9][a-z0-9-]{0,30}$"
"""It stands in reasons and in names of reservations."""


class Order(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One request. `start` and `emergency` make a train; the others are about one that is there."""

    verb: Literal["start", "emergency", "pause", "resume", "end", "off-board"]
    train: Annotated[str, Meta(pattern=NAME)]
    operations: tuple[str, ...] = ()
    """Of start: those that it carries; none means all of the catalogue. Of off-board: those that leave it."""
    why: str = ""
    by: str = ""
    cycle_days: float | None = None
    domain: str | None = None
    break_glass: bool = False


def obey(memory: Memory, order: Order, policy: Policy, look: Snapshot, now: float) -> Memory:
    """Memory after a request. Raises UsageError for what cannot be done."""
    state = memory.maintenance
    if order.verb in ("start", "emergency"):
        return replace(memory, maintenance=put_train(state, made(look, state, order, policy, now)))
    train = state.trains.get(order.train)
    if train is None or not train.active:
        going = ", ".join(one.name for one in state.moving()) or "none"
        raise UsageError(f"could not {order.verb} the train {order.train!r}: it is not under way (under way: {going})")
    return replace(memory, maintenance=put_train(state, _changed(train, order, now)))


def _changed(train: Train, order: Order, now: float) -> Train:
    words = f"{order.by}: {order.why or 'no reason given'}"
    if order.verb == "pause":
        return replace(train, paused=words)
    if order.verb == "resume":
        # What stopped it has been looked at; its hosts are watched anew.
        return replace(train, paused="", bad={}, full_at=now if train.full_at is not None else None)
    if order.verb == "end":
        return replace(train, paused=words, cycle_s=min(train.cycle_s, now - train.started_at))
    unknown = [name for name in order.operations if name not in train.operations]
    if unknown or not order.operations:
        raise UsageError(
            f"could not take {', '.join(unknown) or 'nothing'} off the train {train.name!r}",
            hint=f"it carries {', '.join(train.carried)}",
        )
    train = replace(train, off={**train.off, **dict.fromkeys(order.operations, f"taken off by {words}")})
    return train if train.carried else replace(train, paused=train.paused or "no operation is left")


def made(look: Snapshot, state: Maintenance, order: Order, policy: Policy, now: float) -> Train:
    """A new train. Raises UsageError when it cannot be."""
    rules = policy.maintenance
    catalogue = rules.registry
    attempted = f"could not start the train {order.train!r}"
    if catalogue is None:
        raise UsageError(
            f"{attempted}: there is no catalogue", hint="name one with maintenance.catalogue in the policy"
        )
    if not rules.inventory:
        raise UsageError(
            f"{attempted}: nothing tells which versions are on a host",
            hint="set maintenance.inventory; that an operation ended with 0 is not believed",
        )
    if not (rules.checks.quick or rules.checks.medium or rules.checks.soak):
        raise UsageError(f"{attempted}: nothing verifies a host", hint="set one of maintenance.checks at least")
    if (other := state.trains.get(order.train)) is not None and other.active:
        raise UsageError(f"{attempted}: it is under way", hint="take another name, or end that one")
    unknown = [name for name in order.operations if name not in catalogue.operations]
    if unknown:
        known = ", ".join(catalogue.operations)
        raise UsageError(f"{attempted}: there is no operation {', '.join(unknown)}", hint=f"known: {known}")
    wanted = set(order.operations or catalogue.operations)
    if any(catalogue.operations[name].needs_reboot for name in wanted):
        wanted |= {name for name, one in catalogue.operations.items() if one.executor.kind == "reboot"}
    operations = tuple(name for name in catalogue.order if name in wanted)
    scopes = [catalogue.operations[name].scope for name in operations if visit.shared(catalogue.operations[name])]
    size = domain(look, policy, operations, order.domain, order.cycle_days)
    if scopes and size.unit == "":
        # What hosts share can only be worked on when all of them are out.
        widest = max(scopes, key=("switch", "leaf", "pod").index)
        size = domain(look, policy, operations, widest, order.cycle_days)
    return Train(
        name=order.train,
        operations=operations,
        started_at=now,
        cycle_s=(order.cycle_days or rules.cycle_days) * 86400.0,
        domain=size.hosts,
        unit=size.unit,
        by=order.by,
        why=order.why,
        emergency=order.verb == "emergency",
        break_glass=order.break_glass,
    )


def domain(
    look: Snapshot, policy: Policy, operations: tuple[str, ...], wanted: str | None, cycle_days: float | None
) -> domains.Domain:
    """How many hosts the train takes at once. Raises UsageError."""
    rules = policy.maintenance
    assert rules.registry is not None
    sizes = [len(names) for names in look.holders.values()]
    fleet = domains.Fleet(
        hosts=len(look.nodes),
        largest_job=max(sizes, default=0) or 1,
        cycle_h=(cycle_days or rules.cycle_days) * 24.0,
        visit_h=visit.lasts_s(rules, operations) / 3600.0,
        interruption_h=rules.interruption_s / 3600.0,
        failures_per_1000_node_days=rules.failures_per_1000_node_days,
    )
    text = wanted or rules.domain
    units = build(look.leaf_of, rules.units)
    return domains.size(text, fleet, units.by_kind.get(text.strip().lower()))
