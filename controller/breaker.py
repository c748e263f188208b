"""Too many nodes leaving service in too short a time mean that a check, a switch or we are wrong, not the fleet. Pure.

The breaker stops new drains, and requeues for the cause that tripped it. It never stops nodes from coming back.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from trainmaster.controller.acts import Trip
from trainmaster.controller.memory import Drain
from trainmaster.controller.policy import Drains


def automatic(drains: Iterable[Drain], policy: Drains, now: float) -> tuple[Drain, ...]:
    """Those of the window that no person made."""
    return tuple(one for one in drains if one.by != "other" and now - one.at <= policy.breaker_window_s)


def allowance(fleet: int, policy: Drains) -> int:
    """How many drains a window bears.

    >>> allowance(12_500, Drains()), allowance(20, Drains())
    (250, 3)
    """
    return max(policy.breaker_least, int(policy.breaker_share * fleet))


def trips(
    drains: Iterable[Drain], *, fleet: int, leaf_of: Mapping[str, str], policy: Drains, now: float
) -> tuple[Trip, ...]:
    """What is stopped now, and why."""
    recent = automatic(drains, policy, now)
    minutes = policy.breaker_window_s / 60.0
    found = []
    most = allowance(fleet, policy)
    if len(recent) > most:
        why = f"{len(recent)} nodes left service within {minutes:.0f} min; {most} are believed"
        found.append(Trip(scope="all", name="", why=why))
    if len(recent) >= policy.concentration_least:
        for scope, counts in (
            ("cause", Counter(one.cause for one in recent)),
            ("leaf", Counter(leaf_of[one.node] for one in recent if one.node in leaf_of)),
        ):
            # A fleet under one leaf switch has all of its drains there, which says nothing.
            if scope == "leaf" and len(set(leaf_of.values())) < 2:
                continue
            for name, count in counts.most_common(1):
                if count > policy.concentration_share * len(recent):
                    why = f"{count} of {len(recent)} drains within {minutes:.0f} min are of {scope} {name!r}"
                    found.append(Trip(scope=scope, name=name, why=why))
    return tuple(found)


def stops(tripped: Iterable[Trip], *, node: str, cause: str, leaf_of: Mapping[str, str]) -> Trip | None:
    """The trip that forbids a drain, or distrusts a cause; None when nothing does."""
    for trip in tripped:
        if (
            trip.scope == "all"
            or (trip.scope == "cause" and trip.name == cause)
            or (trip.scope == "leaf" and leaf_of.get(node) == trip.name)
        ):
            return trip
    return None
