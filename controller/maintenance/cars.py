"""Which hosts a train takes in hand next: as many as its domain, its phase and what was promised leave room for. Pure.

Hosts on which nothing runs come first. A busy one is drained under its jobs, which costs them nothing: it is worked on
when they end or start again for whatever reason, and by then Slurm gives them others. Only when the cycle would not be
kept are jobs asked to leave (`leaving`).
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainmaster.controller import snapshot
from trainmaster.controller.acts import Act, Kind, Refusal
from trainmaster.controller.capacity import Ledger
from trainmaster.controller.maintenance.limits import Rollout
from trainmaster.controller.maintenance.state import (
    CAUSE,
    Host,
    Maintenance,
    Stage,
    Train,
    reservation_name,
)
from trainmaster.controller.maintenance.units import Units
from trainmaster.controller.memory import OURS, Memory, NodeState
from trainmaster.controller.policy import Policy
from trainmaster.controller.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a train has come."""

    hosts: int
    """All that it is for."""
    visited: int
    in_hand: int


def fleet(look: Snapshot) -> int:
    """The hosts that there are."""
    return len(look.nodes)


def progress(look: Snapshot, state: Maintenance, train: Train) -> Progress:
    """How far a train has come."""
    in_hand = sum(1 for host in state.hosts.values() if host.train == train.name)
    return Progress(hosts=fleet(look), visited=train.visited, in_hand=in_hand)


def phase_limit(train: Train, hosts: int, rollout: Rollout) -> int:
    """How many hosts may have been visited up to the end of this phase.

    >>> train = Train(name="t", operations=(), started_at=0.0, cycle_s=1.0, domain=4)
    >>> [phase_limit(replace(train, phase=phase), 1000, Rollout()) for phase in range(4)]
    [2, 10, 100, 1000]
    """
    if train.phase == 0:
        return min(hosts, rollout.canary)
    if train.phase <= len(rollout.shares):
        return min(hosts, max(rollout.canary, math.ceil(rollout.shares[train.phase - 1] * hosts)))
    return hosts


def soak_s(train: Train, rollout: Rollout) -> float:
    """How long the hosts of this phase are watched once all are back."""
    return rollout.soak_s[min(train.phase, len(rollout.soak_s) - 1)] if rollout.soak_s else 0.0


def soaking_until(train: Train, hosts: int, rollout: Rollout) -> float | None:
    """Until when a full phase is watched; None while it is not full, or when all hosts may be taken."""
    if train.full_at is None or phase_limit(train, hosts, rollout) >= hosts:
        return None
    return train.full_at + soak_s(train, rollout)


def next_car(
    look: Snapshot, memory: Memory, policy: Policy, units: Units, train: Train, left: Ledger
) -> tuple[Act | None, list[Refusal]]:
    """The next car of a train: its hosts booked, or the rule that stands in the way."""
    state = memory.maintenance
    if f"reservation:{reservation_name(train.name, train.cars + 1)}" in memory.open_targets:
        return None, []
    come = progress(look, state, train)
    limit = phase_limit(train, come.hosts, policy.maintenance.rollout)
    room = min(train.domain - come.in_hand, limit - come.visited - come.in_hand)
    if train.unit:
        # Whole units, one set at a time; a host of theirs that was out of service meanwhile is awaited by the others.
        room = train.domain
    if room < 1 or (come.in_hand and room < max(1, train.domain // 4) and not train.unit):
        return None, []
    chosen, refused = _choose(look, memory, policy, units, train, left, room)
    if not chosen:
        return None, refused
    names = tuple(sorted(chosen))
    car = train.cars + 1
    act = Act(
        kind=Kind.BOOK,
        cause=CAUSE,
        why=f"train {train.name} car {car}: {len(names)} hosts, {come.visited} of {come.hosts} visited",
        attempt=f"{train.started_at:.0f}",
        nodes=names,
        planned=not train.break_glass,
        train=train.name,
        car=car,
        reservation=reservation_name(train.name, car),
        until=train.deadline if policy.maintenance.reserve else 0.0,
    )
    return act, refused


def eligible(look: Snapshot, memory: Memory, train: Train, name: str) -> bool:
    """Whether a train still has to come to a host, and may take it."""
    before = memory.maintenance.past.get(name)
    if name in memory.maintenance.hosts or (before is not None and train.name in before.visited):
        return False
    if f"node:{name}" in memory.open_targets or not snapshot.in_service(look.nodes[name]):
        return False
    record = memory.nodes.get(name)
    return record is None or (record.state not in OURS and record.state is not NodeState.FOREIGN)


def _choose(
    look: Snapshot, memory: Memory, policy: Policy, units: Units, train: Train, left: Ledger, room: int
) -> tuple[list[str], list[Refusal]]:
    if (against := _none_fits(look, left, planned=not train.break_glass)) is not None:
        return [], [_refusal(train, *against)]
    candidates = [name for name in look.nodes if eligible(look, memory, train, name)]
    if not candidates:
        return [], []
    if train.unit and (
        in_hand := [host.name for host in memory.maintenance.hosts.values() if host.train == train.name]
    ):
        begun = {units.of(train.unit, name) for name in in_hand} - {""}
        candidates = [name for name in candidates if units.of(train.unit, name) in begun]
    elif train.unit:
        return _choose_unit(look, memory, units, train, left, candidates, room)
    refused: list[Refusal] = []
    chosen: list[str] = []
    for name in _in_order(look, memory, candidates, room):
        against = left.refuses(name, planned=not train.break_glass, automatic=False)
        if against is not None:
            refused.append(_refusal(train, *against))
            break
        chosen.append(name)
    return chosen, refused


def _none_fits(look: Snapshot, left: Ledger, *, planned: bool) -> tuple[str, str] | None:
    """What speaks against every host, of whatever kind: most looks end here, and need not put them in order."""
    against: tuple[str, str] | None = None
    seen: set[tuple[tuple[str, ...], str]] = set()
    for name, node in look.nodes.items():
        kind = (node.partitions, node.gres)
        if kind in seen or not snapshot.in_service(node):
            continue
        seen.add(kind)
        against = left.copy().refuses(name, planned=planned, automatic=False)
        if against is None:
            return None
    return against


def _in_order(look: Snapshot, memory: Memory, candidates: Sequence[str], count: int) -> list[str]:
    """The best: free hosts first; then those of jobs that lose hosts to us anyway; then those whose jobs end soonest.

    Of a job that can be moved node by node its batch host comes last, since that moves only with a requeue.
    """
    jobs = look.jobs_on(candidates)
    in_hand = [host.name for host in memory.maintenance.in_hand()]
    hit = {job_id for ids in look.jobs_on(in_hand).values() for job_id in ids} if in_hand else set()

    ranks: dict[tuple[int, ...], tuple[int, float]] = {(): (0, 0.0)}
    for ids in set(jobs.values()):
        ends = max(look.jobs[job_id].end_time or math.inf for job_id in ids)
        ranks[ids] = (1 if hit.issuperset(ids) else 2), ends
    first = {look.jobs[job_id].batch_host for ids in ranks for job_id in ids}

    def key(name: str) -> tuple[tuple[int, float], tuple[int, ...], bool, str]:
        ids = jobs.get(name, ())
        return ranks[ids], ids, name in first, name

    return heapq.nsmallest(count, candidates, key=key)


def _choose_unit(
    look: Snapshot,
    memory: Memory,
    units: Units,
    train: Train,
    left: Ledger,
    candidates: Sequence[str],
    room: int,
) -> tuple[list[str], list[Refusal]]:
    """Whole units, the one with most free hosts first; as many as fit. Hosts of none go one by one at the end."""
    jobs = look.jobs_on(candidates)
    groups: dict[str, list[str]] = {}
    for name in candidates:
        groups.setdefault(units.of(train.unit, name), []).append(name)
    busy = {unit: sum(1 for name in names if name in jobs) for unit, names in groups.items()}
    chosen: list[str] = []
    for unit in sorted(groups, key=lambda unit: (not unit, busy[unit], unit)):
        names = sorted(groups[unit])
        if not unit:
            names = names[: max(0, room - len(chosen))]
        if not names or len(chosen) + len(names) > room:
            continue
        trial = left.copy()
        against = next(
            (found for name in names if (found := trial.refuses(name, planned=not train.break_glass, automatic=False))),
            None,
        )
        if against is not None:
            why = f"{train.unit} {unit} as a whole: {against[1]}"
            return chosen, [] if chosen else [_refusal(train, against[0], why)]
        left.take(trial)
        chosen += names
    return chosen, []


def _refusal(train: Train, rule: str, why: str) -> Refusal:
    return Refusal(subject=f"train:{train.name}", wanted=Kind.DRAIN, rule=rule, why=why)


def drains(
    look: Snapshot, memory: Memory, state: Maintenance, trains: Mapping[str, Train], left: Ledger
) -> tuple[list[Act], list[Refusal]]:
    """Booked hosts that are now taken out, each car in one call; once more only as far as there is room."""
    cars: dict[tuple[str, int], list[Host]] = {}
    refused: list[Refusal] = []
    for host in state.in_hand():
        train = trains.get(host.train)
        node = look.nodes.get(host.name)
        if host.stage is not Stage.BOOKED or train is None or train.paused or node is None:
            continue
        if f"node:{host.name}" in memory.open_targets or snapshot.drained(node):
            continue
        against = left.refuses(host.name, planned=not train.break_glass, automatic=False)
        if against is not None:
            refused.append(_refusal(train, *against))
            continue
        cars.setdefault((host.train, host.car), []).append(host)
    acts = []
    for (name, car), hosts in sorted(cars.items()):
        train = trains[name]
        acts.append(
            Act(
                kind=Kind.DRAIN,
                cause=CAUSE,
                why=f"{name} car {car}",
                attempt=f"{train.started_at:.0f}:{car}:{max(host.since for host in hosts):.3f}",
                nodes=tuple(sorted(host.name for host in hosts)),
                planned=not train.break_glass,
                train=name,
                car=car,
            )
        )
    return acts, refused
