"""What maintenance wants now, from what was seen and is remembered: the daemon and the simulator ask the same. Pure."""

from dataclasses import dataclass

from trainmaster.controller import snapshot
from trainmaster.controller.acts import Act, Kind, Refusal
from trainmaster.controller.capacity import Ledger
from trainmaster.controller.maintenance import cars, leaving, steps, visit
from trainmaster.controller.maintenance.state import CAUSE, Host, Maintenance, Stage, reservation_name
from trainmaster.controller.maintenance.units import Units, build
from trainmaster.controller.memory import Memory
from trainmaster.controller.policy import Policy
from trainmaster.controller.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What follows from a look."""

    acts: tuple[Act, ...] = ()
    refused: tuple[Refusal, ...] = ()
    due: float | None = None


def decide(look: Snapshot, memory: Memory, policy: Policy, now: float, left: Ledger) -> Wanted:
    """Acts of all trains; `left` is what repairs have left of the capacity that may be taken."""
    state = memory.maintenance
    catalogue = policy.maintenance.registry
    if state.idle or catalogue is None:
        return Wanted()
    units = build(look.leaf_of, policy.maintenance.units)
    acts: list[Act] = _unbook(memory, policy, now)
    back = _give_back(look, memory, policy)
    acts += back
    given = {name for act in back for name in act.nodes}
    acts += [act for act in steps.decide(look, memory, policy, catalogue, units) if given.isdisjoint(act.nodes)]
    gone = leaving.decide(look, memory, policy, now)
    acts += gone.acts
    refused = list(gone.refused)
    due = list(gone.due)
    if not back:
        out, refused_out = cars.drains(look, memory, state, state.trains, left)
        acts += out
        refused += refused_out
        more, refused_more, soaks = _more(look, memory, policy, units, now, left)
        acts += more
        refused += refused_more
        due += soaks
    return Wanted(acts=tuple(acts), refused=tuple(refused), due=min((at for at in due if at > now), default=None))


def _more(
    look: Snapshot, memory: Memory, policy: Policy, units: Units, now: float, left: Ledger
) -> tuple[list[Act], list[Refusal], list[float]]:
    """The next car of the first train that may have one."""
    moving = memory.maintenance.moving()
    soaks: list[float] = []
    for train in moving:
        if train.paused or now >= train.deadline:
            continue
        until = cars.soaking_until(train, cars.fleet(look), policy.maintenance.rollout)
        if until is not None:
            soaks.append(until)
            continue
        act, refused = cars.next_car(look, memory, policy, units, train, left)
        if act is not None or refused:
            return ([act] if act is not None else []), refused, soaks
        if train.emergency:
            break  # the others wait until it has come through
    return [], [], soaks


def _unbook(memory: Memory, policy: Policy, now: float) -> list[Act]:
    """Hosts that are in a reservation of ours still and in no car any more: given back, failed, or taken over."""
    state = memory.maintenance
    acts = []
    left_s = visit.left_running_s(policy.maintenance)
    for name, booking in sorted(state.reservations.items()):
        if booking.found and now - booking.at <= left_s:
            continue
        gone = tuple(one for one in booking.hosts if not _in_car(state, one, name))
        if any(f"node:{one}" in memory.open_targets for one in gone):
            continue
        if gone or not booking.hosts:
            acts.append(
                Act(
                    kind=Kind.UNBOOK,
                    cause=CAUSE,
                    why=f"{len(gone)} hosts have left it",
                    attempt=f"{booking.at:.0f}:left",
                    nodes=gone,
                    reservation=name,
                )
            )
    return acts


def _in_car(state: Maintenance, name: str, reservation: str) -> bool:
    host = state.hosts.get(name)
    return host is not None and reservation_name(host.train, host.car) == reservation


def _give_back(look: Snapshot, memory: Memory, policy: Policy) -> list[Act]:
    """Hosts to which nothing was done yet, of paused trains, or where failures have eaten what was promised."""
    state = memory.maintenance
    short = [name for name, promised in policy.guarantee.items() if look.available(name) < promised.nodes]
    together: dict[tuple[str, str, int], tuple[list[Host], str]] = {}
    for host in state.in_hand():
        node, train = look.nodes.get(host.name), state.trains.get(host.train)
        if node is None or not host.untouched or f"node:{host.name}" in memory.open_targets:
            continue
        if host.stage is Stage.BOOKED or not snapshot.drained(node):
            continue
        lacks = sorted(set(short).intersection(snapshot.groups(node)))
        if train is not None and train.paused:
            why = f"train {host.train} is paused: {train.paused}"
        elif lacks and not (train is not None and train.break_glass):
            why = f"failures left {look.available(lacks[0])} nodes of {lacks[0]}"
        else:
            continue
        reason = steps.reason_of(memory, host.name)
        together.setdefault((reason, host.train, host.car), ([], why))[0].append(host)
    return [steps.give_back(hosts, reason, why) for (reason, _, _), (hosts, why) in sorted(together.items())]
