"""Where trains are, what they come to next, and the line of capacity that they may not cross. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainmaster.controller.maintenance.state import Host, Maintenance, Stage, Train
from trainmaster.controller.policy import Guarantee
from trainmaster.controller.snapshot import Snapshot

POINTS_MAX = 600
"""Of a line; more than a screen has room for would only cost time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Car:
    """Hosts of one car that stand at the same stage."""

    number: int
    stage: str
    hosts: tuple[str, ...]
    since: float
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainFact:
    """One train."""

    name: str
    where: str
    """under way, paused or through."""
    why: str
    """Who started it and what for; of a paused one, why it stands."""
    operations: tuple[str, ...]
    off: tuple[str, ...]
    """Operations that were taken off it, each with its why."""
    emergency: bool
    domain: int
    phase: int
    cars: int
    visited: int
    in_hand: int
    left: int
    """Hosts that it has not come to."""
    total: int
    started_at: float
    deadline: float
    ended_at: float | None
    at_work: tuple[Car, ...]
    failed: tuple[Car, ...]
    bad: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Nodes in service of one partition or type of GPU, over time, and what was promised of it."""

    group: str
    size: int
    promised: int | None
    """None where nothing is."""
    buffer: int
    """Kept beyond the promise for what fails by itself: nothing planned goes into it."""
    now: int
    points: tuple[tuple[float, int], ...]
    """When, and from then on how many; the last holds until now."""


def trains_of(state: Maintenance, hosts: int) -> tuple[TrainFact, ...]:
    """All trains, those under way first, then the newest."""
    every = sorted(state.trains.values(), key=lambda one: (not one.active, -one.started_at))
    return tuple(_train(one, state, hosts) for one in every)


def _train(train: Train, state: Maintenance, hosts: int) -> TrainFact:
    mine = [host for host in state.hosts.values() if host.train == train.name]
    past = [host for host in state.past.values() if train.name in host.visited]
    where = "through" if not train.active else "paused" if train.paused else "under way"
    return TrainFact(
        name=train.name,
        where=where,
        why=train.paused if where == "paused" else f"{train.by}: {train.why}" if train.why else train.by,
        operations=train.carried,
        off=tuple(f"{name}: {why}" for name, why in train.off.items()),
        emergency=train.emergency,
        domain=train.domain,
        phase=train.phase,
        cars=train.cars,
        visited=train.visited,
        in_hand=len(mine),
        left=max(0, hosts - train.visited - len(mine)) if train.active else len(train.missed),
        total=hosts,
        started_at=train.started_at,
        deadline=train.deadline,
        ended_at=train.ended_at,
        at_work=_cars(mine),
        failed=_cars([host for host in past if host.stage in (Stage.FAILED, Stage.LEFT)]),
        bad=tuple(sorted(train.bad.items())),
    )


def _cars(hosts: Sequence[Host]) -> tuple[Car, ...]:
    together: dict[tuple[int, str], list[Host]] = {}
    for host in hosts:
        together.setdefault((host.car, host.stage.value), []).append(host)
    return tuple(
        Car(
            number=number,
            stage=stage,
            hosts=tuple(sorted(host.name for host in some)),
            since=min(host.since for host in some),
            why=next((host.why for host in some if host.why), ""),
        )
        for (number, stage), some in sorted(together.items())
    )


def lines_of(
    look: Snapshot, guarantee: Mapping[str, Guarantee], told: Mapping[str, Sequence[tuple[float, int]]]
) -> tuple[Line, ...]:
    """A line for each group that something is promised of; where nothing is, one for each partition.

    Args:
        look: Slurm's word, which the last point is taken from.
        guarantee: The policy's.
        told: By group, when capacity changed, and to how many, the oldest first.
    """
    groups = [name for name in guarantee if name in look.partition_size]
    groups = groups or [name for name in look.partition_size if not name.startswith("gpu:")]
    found = []
    for name in groups:
        promised = guarantee.get(name)
        now = look.available(name)
        past = [(at, count) for at, count in told.get(name, ()) if at <= look.at]
        if not past or past[-1][1] != now:
            past.append((look.at, now))
        found.append(
            Line(
                group=name,
                size=look.partition_size[name],
                promised=promised.nodes if promised is not None else None,
                buffer=promised.failure_buffer if promised is not None else 0,
                now=now,
                points=thinned(past),
            )
        )
    return tuple(found)


def thinned(points: Sequence[tuple[float, int]], most: int = POINTS_MAX) -> tuple[tuple[float, int], ...]:
    """No more than `most` points, of which none hides a low: of each stretch the first and the lowest are kept.

    >>> thinned([(0, 9), (1, 3), (2, 8), (3, 9), (4, 7), (5, 9)], most=4)
    ((0, 9), (1, 3), (3, 9), (4, 7))
    """
    if len(points) <= most:
        return tuple(points)
    width = -(-len(points) // (most // 2))
    kept: list[tuple[float, int]] = []
    for begin in range(0, len(points), width):
        some = points[begin : begin + width]
        lowest = min(some, key=lambda point: point[1])
        kept += [some[0]] if lowest == some[0] else [some[0], lowest]
    return tuple(kept)
