"""Trains from nothing but Slurm: reasons on nodes, and names of reservations. Pure."""

import re
from dataclasses import replace

from trainmaster.controller import snapshot
from trainmaster.controller.acts import MARK
from trainmaster.controller.maintenance.state import CAUSE, Booking, Host, Maintenance, Stage, Train
from trainmaster.controller.memory import Memory, NodeState
from trainmaster.controller.policy import Policy
from trainmaster.controller.snapshot import Snapshot

_REASON = re.compile(rf"{re.escape(MARK)}{CAUSE}: (?P<train>\S+) car (?P<car>\d+) #")
_RESERVATION = re.compile(r"tm-train-(?P<train>[a-z0-9-]+)-(?P<car>\d+)")


def trains(look: Snapshot, policy: Policy, now: float, memory: Memory) -> Memory:
    """Memory with the hosts that trains had in hand when the journal was lost.

    What was done to them is not known, so they go through inspection and verification as if something had been, once
    no command that was left running can still be at work on them (`folding`). Their
    trains stand still until a person has looked: what they carried, and how far they had come, is lost.
    """
    hosts: dict[str, Host] = {}
    cars: dict[str, int] = {}
    for name, record in memory.nodes.items():
        match = _REASON.match(record.reason)
        if record.state is not NodeState.MAINTENANCE or match is None:
            continue
        train, car = match["train"], int(match["car"])
        cars[train] = max(car, cars.get(train, 0))
        hosts[name] = Host(name=name, train=train, car=car, stage=Stage.DRAINING, since=now, worked_at=now, drains=1)
    booked: dict[str, Booking] = {}
    for one in look.reservations:
        match = _RESERVATION.fullmatch(one.name)
        if match is not None:
            booked[one.name] = Booking(at=now, hosts=tuple(sorted(snapshot.members(one.nodes))), found=True)
            cars[match["train"]] = max(int(match["car"]), cars.get(match["train"], 0))
    registry = policy.maintenance.registry
    under_way = {
        name: Train(
            name=name,
            operations=registry.order if registry is not None else (),
            started_at=now,
            cycle_s=policy.maintenance.cycle_days * 86400.0,
            domain=max(1, len([host for host in hosts.values() if host.train == name])),
            by="the controller",
            why="found in Slurm",
            cars=car,
            paused="its journal was lost: start it anew, or end it",
            off=dict.fromkeys(registry.order if registry is not None else (), "not known to be of this train"),
        )
        for name, car in sorted(cars.items())
    }
    state = Maintenance(trains=under_way, hosts=hosts, reservations=booked)
    return memory if state.idle else replace(memory, maintenance=state)
