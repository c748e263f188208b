"""What is remembered of a train's act that was done, or that failed. Pure; the daemon and the simulator share it."""

from collections.abc import Mapping
from dataclasses import replace

from trainmaster.controller.acts import Act, Kind
from trainmaster.controller.maintenance import visit
from trainmaster.controller.maintenance.catalogue import Catalogue
from trainmaster.controller.maintenance.limits import MaintenancePolicy
from trainmaster.controller.maintenance.state import (
    TIERS,
    Booking,
    Host,
    Maintenance,
    Notice,
    Stack,
    Stage,
    Train,
    drop_hosts,
    put_hosts,
    put_train,
    to,
)
from trainmaster.controller.memory import Memory, NodeRecord, NodeState, put_nodes

Versions = Mapping[str, Mapping[str, str]]
"""By node, by component, what an inventory said."""


def booked(memory: Memory, act: Act, now: float) -> Memory:
    """The hosts of a new car are spoken for."""
    state = memory.maintenance
    train = state.trains.get(act.train)
    if train is None:
        return memory
    hosts = []
    for name in act.nodes:
        before = state.past.get(name)
        host = Host(name=name, train=act.train, car=act.car, stage=Stage.BOOKED, since=now)
        if before is not None:
            host = replace(host, visited=before.visited, drains=before.drains if before.train == act.train else 0)
        hosts.append(host)
    state = put_hosts(put_train(state, replace(train, cars=max(train.cars, act.car))), hosts)
    booking = Booking(at=now, hosts=act.nodes)
    return replace(memory, maintenance=replace(state, reservations={**state.reservations, act.reservation: booking}))


def unbooked(memory: Memory, act: Act, now: float) -> Memory:
    """A reservation is gone, or some hosts are out of it: these are through."""
    state = memory.maintenance
    hosts = [
        to(host, Stage.DONE, now, host.why, returned_at=now)
        for name in act.nodes
        if (host := state.hosts.get(name)) is not None and host.stage is Stage.FINISHING
    ]
    booking = state.reservations.get(act.reservation)
    if booking is not None:
        left = tuple(name for name in booking.hosts if name not in act.nodes)
        others = {name: one for name, one in state.reservations.items() if name != act.reservation}
        state = replace(
            state, reservations={**others, act.reservation: replace(booking, hosts=left)} if left else others
        )
    return replace(memory, maintenance=put_hosts(state, hosts))


def drained(memory: Memory, act: Act, now: float) -> Memory:
    """Hosts are out; what runs there may still take its time."""
    state = memory.maintenance
    hosts = [
        to(host, Stage.DRAINING, now, drains=host.drains + 1)
        for name in act.nodes
        if (host := state.hosts.get(name)) is not None
    ]
    return replace(memory, maintenance=put_hosts(state, hosts))


def returned(memory: Memory, act: Act, now: float) -> Memory:
    """Hosts work again: given back untouched, or through all that was due."""
    state = memory.maintenance
    untouched = [name for name in act.nodes if name in state.hosts and state.hosts[name].untouched]
    state = drop_hosts(state, untouched)
    hosts = [to(state.hosts[name], Stage.FINISHING, now) for name in act.nodes if name in state.hosts]
    return replace(memory, maintenance=put_hosts(state, hosts))


def operated(memory: Memory, act: Act, policy: MaintenancePolicy, now: float, *, ok: bool, said: str) -> Memory:
    """An operation ended on its hosts."""
    state = memory.maintenance
    operation = act.work.partition("@")[0]
    if not any(name in state.hosts for name in act.nodes):
        return memory  # somebody else has them by now, and what became of it is theirs to know
    train = state.trains.get(act.train)
    if train is not None:
        state = put_train(state, _counted(train, operation, policy, ok=ok, count=len(act.nodes), said=said))
    hosts = [state.hosts[name] for name in act.nodes if name in state.hosts]
    if ok:
        hosts = [replace(host, done=(*host.done, operation), worked_at=now, since=now) for host in hosts]
        return replace(memory, maintenance=put_hosts(state, hosts))
    return _failed(memory, state, hosts, f"{operation}: {said}", operation, now)


def inspected(memory: Memory, act: Act, policy: MaintenancePolicy, found: Versions, now: float) -> Memory:
    """Versions were looked at: hosts that have what they have to go on to verification."""
    state = memory.maintenance
    catalogue = policy.registry
    assert catalogue is not None, "no train moves without a catalogue"
    first = {name for name in act.nodes if name not in state.stacks and name in found}
    stacks = {**state.stacks, **{name: Stack(versions=dict(one), at=now) for name, one in found.items()}}
    state = replace(state, stacks=stacks)
    memory = replace(memory, maintenance=state)
    going: list[Host] = []
    for name in act.nodes:
        host = state.hosts.get(name)
        if host is None or host.stage not in (Stage.WORKING, Stage.INSPECTING):
            continue
        wanted = _led_to(catalogue, host)
        lacks = visit.lacking(wanted, stacks[name].versions if name in found else {})
        if name not in found:
            memory = _wrong(memory, policy, host, ("inventory",), "its versions could not be seen", now)
        elif lacks:
            words = ", ".join(
                f"{component} is {version or 'not seen'} and not {wanted[component]}"
                for component, version in lacks.items()
            )
            guilty = [one for one in host.done if not lacks.keys().isdisjoint(catalogue.operations[one].upgrades)]
            memory = _wrong(memory, policy, host, tuple(guilty), words, now)
        elif name in first and host.stage is Stage.WORKING and not host.done:
            going.append(replace(host, since=now))  # now it is known what is due
        else:
            going.append(_next_tier(replace(host, inspected_at=now, tier=0), policy, now))
    return replace(memory, maintenance=put_hosts(memory.maintenance, going))


def _led_to(catalogue: Catalogue, host: Host) -> dict[str, str]:
    """The versions that what was done on a host leads to."""
    return {
        component: version
        for one in host.done
        if one in catalogue.operations
        for component, version in catalogue.operations[one].upgrades.items()
    }


def checked(memory: Memory, act: Act, policy: MaintenancePolicy, now: float, *, ok: bool, said: str) -> Memory:
    """A tier of verification ended."""
    state = memory.maintenance
    host = state.hosts.get(act.nodes[0])
    if host is None:
        return memory
    if not ok:
        return _wrong(memory, policy, host, (act.work,), f"{act.work} verification: {said}", now)
    host = _next_tier(replace(host, tier=host.tier + 1), policy, now)
    return replace(memory, maintenance=put_hosts(state, [host]))


def _next_tier(host: Host, policy: MaintenancePolicy, now: float) -> Host:
    """A host before the next tier that there is a command for, or on its way back."""
    tier = host.tier
    while tier < len(TIERS) and not getattr(policy.checks, TIERS[tier]):
        tier += 1
    return to(host, Stage.CHECKING if tier < len(TIERS) else Stage.RETURNING, now, tier=tier)


def labelled(memory: Memory, act: Act, now: float) -> Memory:
    """A feature is set; nothing here depends on it but the next look."""
    state = memory.maintenance
    hosts = [replace(state.hosts[name], since=now) for name in act.nodes if name in state.hosts]
    return replace(memory, maintenance=put_hosts(state, hosts))


def asked(memory: Memory, notices: tuple[Notice, ...]) -> Memory:
    """Jobs whose turn has come."""
    if not notices:
        return memory
    state = memory.maintenance
    return replace(
        memory, maintenance=replace(state, notices={**state.notices, **{one.job_id: one for one in notices}})
    )


def told(memory: Memory, act: Act, now: float) -> Memory:
    """A job was signalled, or put back."""
    known = memory.maintenance.notices.get(act.job_id)
    notice = known if known is not None and known.restarts == act.restarts else None
    notice = notice or Notice(job_id=act.job_id, restarts=act.restarts, asked_at=now)
    if act.kind is Kind.NOTIFY:
        return asked(memory, (replace(notice, signalled_at=now),))
    return asked(memory, (replace(notice, requeued_at=now),))


def _wrong(
    memory: Memory, policy: MaintenancePolicy, host: Host, guilty: tuple[str, ...], words: str, now: float
) -> Memory:
    """A host that is not as it has to be after its operations."""
    state = memory.maintenance
    train = state.trains.get(host.train)
    if train is not None:
        for one in guilty or ("versions",):
            train = _counted(train, one, policy, ok=False, count=1, said=words)
        state = put_train(state, train)
    return _failed(memory, state, [host], words, guilty[0] if guilty else "versions", now)


def _failed(memory: Memory, state: Maintenance, hosts: list[Host], words: str, failed: str, now: float) -> Memory:
    """Hosts stay out, and wait for a person."""
    why = words[:180]
    state = put_hosts(state, [to(host, Stage.FAILED, now, why, failed=failed) for host in hosts])
    records: list[NodeRecord] = []
    for host in hosts:
        record = memory.nodes.get(host.name)
        if record is not None:
            records.append(
                replace(
                    record,
                    state=NodeState.REPAIR,
                    since=now,
                    why=f"train {host.train}: {why}"[:200],
                    released=False,
                    ticketed=False,
                )
            )
    return replace(put_nodes(memory, records), maintenance=state)


def _counted(train: Train, what: str, policy: MaintenancePolicy, *, ok: bool, count: int, said: str) -> Train:
    """A train after one more result; a bad operation leaves it, and a check that fails too often stops it."""
    tally = dict(train.ok if ok else train.bad)
    tally[what] = tally.get(what, 0) + count
    train = replace(train, ok=tally) if ok else replace(train, bad=tally)
    if ok or what in train.off:
        return train
    bad, good = train.bad[what], train.ok.get(what, 0)
    operation = what in train.operations
    tried = good if operation else train.visited
    limits = policy.rollout
    if train.phase > 0 and (bad <= limits.failures_max or bad <= limits.failures_share * (bad + tried)):
        return train
    words = f"failed on {bad} of {bad + tried} hosts: {said}"[:200]
    if not operation:
        return replace(train, paused=train.paused or f"{what} {words}")
    train = replace(train, off={**train.off, what: words})
    return train if train.carried else replace(train, paused=train.paused or f"no operation is left: {what} {words}")


def versions_in(text: str, names: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """What an inventory printed, `NODE COMPONENT VERSION` a line, of these nodes; other lines are nobody's business.

    >>> versions_in("n1 kernel 6.8\\nwarning: slow\\nn2 kernel 6.9\\nn1 bios 2.25 1", ("n1",))
    {'n1': {'kernel': '6.8', 'bios': '2.25 1'}}
    """
    found: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        parts = line.split(maxsplit=2)
        if len(parts) == 3 and parts[0] in names:
            found.setdefault(parts[0], {})[parts[1]] = parts[2].strip()
    return found


def reported(memory: Memory, act: Act, policy: MaintenancePolicy, now: float, *, ok: bool, said: str) -> Memory:
    """A command of a train has ended.

    Args:
        memory: Before.
        act: What it was started for.
        policy: The site's.
        now: Epoch seconds.
        ok: Whether it ended with 0, and what verifies it as well.
        said: What it printed; its last words count for people.
    """
    if act.kind is Kind.INSPECT:
        return inspected(memory, act, policy, versions_in(said, act.nodes) if ok else {}, now)
    last = (said.strip().splitlines() or [""])[-1][:160]
    if act.kind is Kind.CHECK:
        return checked(memory, act, policy, now, ok=ok, said=last)
    return operated(memory, act, policy, now, ok=ok, said=last)
