"""What is remembered of maintenance: trains, where each host of a train stands, versions seen, jobs that were asked.

A host's way:

    BOOKED ── drained ──> DRAINING ── nothing runs there ──> WORKING ── all that is due is done ──> INSPECTING
    INSPECTING ── every version was seen ──> CHECKING ── three tiers passed ──> RETURNING ── resumed ──> FINISHING
    FINISHING ── scripts that need Slurm are through, and it is out of its reservation ──> DONE
    any ── an operation, a version or a check failed ──> FAILED ── a person released it ──> WORKING
    BOOKED, DRAINING ── paused, or too little capacity is left ──> given back as it was
    any ── somebody else took the node over, or let it work ──> LEFT
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

TIERS = ("quick", "medium", "soak")
"""What a host has to pass before it returns, in this order."""
CAUSE = "train"
"""By which acts of a train are told."""


class Stage(StrEnum):
    """Where a host stands."""

    BOOKED = "BOOKED"
    DRAINING = "DRAINING"
    WORKING = "WORKING"
    INSPECTING = "INSPECTING"
    CHECKING = "CHECKING"
    RETURNING = "RETURNING"
    FINISHING = "FINISHING"
    DONE = "DONE"
    FAILED = "FAILED"
    LEFT = "LEFT"


UNDER_WAY = frozenset(
    {Stage.BOOKED, Stage.DRAINING, Stage.WORKING, Stage.INSPECTING, Stage.CHECKING, Stage.RETURNING, Stage.FINISHING}
)
"""Stages of a host that a train has in hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host that a train has in hand, or had in this cycle."""

    name: str
    train: str
    car: int
    stage: Stage
    since: float
    why: str = ""
    done: tuple[str, ...] = ()
    """Operations that were done in this visit, in their order."""
    worked_at: float | None = None
    """When something was last done to it; None while it is as it was."""
    inspected_at: float | None = None
    """When its versions were last seen after that, as they have to be."""
    tier: int = 0
    """How many tiers of verification it has passed."""
    drains: int = 0
    """In this train; more than one needs a reason."""
    returned_at: float | None = None
    failed: str = ""
    """The operation, component or check that it failed."""
    visited: tuple[str, ...] = ()
    """The trains that have come to it: all that were under way when it was in hand."""
    regressed: bool = False
    """It went down, or a check drained it, while the others of its phase were watched."""

    @property
    def untouched(self) -> bool:
        """Whether nothing was done to it, so that it may be given back as it is."""
        return self.worked_at is None and self.stage in (Stage.BOOKED, Stage.DRAINING, Stage.WORKING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    """A set of operations that goes through the fleet."""

    name: str
    operations: tuple[str, ...]
    """In the catalogue's order."""
    started_at: float
    cycle_s: float
    domain: int
    """Hosts that may be in hand at once."""
    unit: str = ""
    """leaf, pod or switch where whole units are taken."""
    by: str = ""
    why: str = ""
    cars: int = 0
    """How many were booked."""
    visited: int = 0
    """Hosts that it has come to and that are through: back, failed, or taken over."""
    ok: Mapping[str, int] = field(default_factory=dict)
    """By operation, on how many hosts it went well."""
    bad: Mapping[str, int] = field(default_factory=dict)
    """By operation or check, on how many it did not."""
    phase: int = 0
    """0 canary, then one for each share, then all."""
    full_at: float | None = None
    """When the last host of this phase came back; what follows is watched until the soak is over."""
    paused: str = ""
    """Why; "" while it moves."""
    off: Mapping[str, str] = field(default_factory=dict)
    """Operations that were taken off it, and why."""
    emergency: bool = False
    break_glass: bool = False
    """The guarantee does not hold it up."""
    ended_at: float | None = None
    missed: tuple[str, ...] = ()
    """Hosts that it had not come to when it ended: out of service, or in somebody else's hands, all the while."""

    @property
    def deadline(self) -> float:
        """By which every host is to be visited."""
        return self.started_at + self.cycle_s

    @property
    def active(self) -> bool:
        """Whether it may still do something new."""
        return self.ended_at is None

    @property
    def carried(self) -> tuple[str, ...]:
        """Its operations without those that were taken off."""
        return tuple(name for name in self.operations if name not in self.off)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The versions that were last seen on a host."""

    versions: Mapping[str, str]
    at: float
    exact: bool = True
    """False for what an operation is about to change: nothing may rest on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A job that a train asks to leave."""

    job_id: int
    restarts: int
    asked_at: float
    """When it was first due."""
    signalled_at: float | None = None
    deferred: int = 0
    hosts: tuple[str, ...] = ()
    """That it was asked to leave; once it has none of them any more, what comes next is another matter."""
    requeued_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """A reservation of ours."""

    at: float
    hosts: tuple[str, ...]
    """Sorted; those that are still in it."""
    found: bool = False
    """In Slurm, by a controller without a journal: whoever made it may still be at work on its hosts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintenance:
    """All of it."""

    trains: Mapping[str, Train] = field(default_factory=dict)
    hosts: Mapping[str, Host] = field(default_factory=dict)
    """In hand."""
    past: Mapping[str, Host] = field(default_factory=dict)
    """Those that are through: DONE, FAILED or LEFT."""
    stacks: Mapping[str, Stack] = field(default_factory=dict)
    notices: Mapping[int, Notice] = field(default_factory=dict)
    reservations: Mapping[str, Booking] = field(default_factory=dict)
    """Ours."""

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do, or to look at."""
        return not any(one.active for one in self.trains.values()) and not self.hosts and not self.reservations

    def in_hand(self) -> tuple[Host, ...]:
        """Hosts that a train has in hand, by name."""
        return tuple(self.hosts[name] for name in sorted(self.hosts))

    def moving(self) -> tuple[Train, ...]:
        """Trains that are not over, in the order in which they are served: emergencies first."""
        active = [one for one in self.trains.values() if one.active]
        return tuple(sorted(active, key=lambda one: (not one.emergency, one.started_at, one.name)))

    def carried(self) -> frozenset[str]:
        """Operations of all trains that are not over: what a host goes through in one drain."""
        return frozenset(name for one in self.trains.values() if one.active for name in one.carried)


def put_hosts(state: Maintenance, hosts: Iterable[Host]) -> Maintenance:
    """With these in place of older ones; those that are through are counted as visited by all trains under way."""
    in_hand, past, trains = dict(state.hosts), None, dict(state.trains)
    for host in hosts:
        if host.stage in UNDER_WAY:
            in_hand[host.name] = host
            continue
        in_hand.pop(host.name, None)
        for name in [one.name for one in state.moving()]:
            if name not in host.visited:
                trains[name] = replace(trains[name], visited=trains[name].visited + 1)
                host = replace(host, visited=(*host.visited, name))
        past = past if past is not None else dict(state.past)
        past[host.name] = host
    return replace(state, hosts=in_hand, past=state.past if past is None else past, trains=trains)


def drop_hosts(state: Maintenance, names: Iterable[str]) -> Maintenance:
    """Without these: nothing was done to them, and a train may come again."""
    gone = set(names)
    return replace(state, hosts={name: host for name, host in state.hosts.items() if name not in gone})


def put_train(state: Maintenance, train: Train) -> Maintenance:
    """With this in place of an older one."""
    return replace(state, trains={**state.trains, train.name: train})


def to(host: Host, stage: Stage, now: float, why: str = "", **changes: object) -> Host:
    """A host that moves on."""
    return replace(host, stage=stage, since=now, why=why, **changes)  # type: ignore[arg-type]


def reservation_name(train: str, car: int) -> str:
    """What a car's reservation is called.

    >>> reservation_name("spring", 3)
    'tm-train-spring-3'
    """
    return f"tm-train-{train}-{car}"
