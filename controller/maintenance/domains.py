"""How many hosts are taken out in one go, and why so many: the maintenance domain. Pure.

Small domains cost little capacity and interrupt jobs often; large ones the other way round. A job on J of N hosts that
is interrupted once for each domain of d hosts in a cycle of T hours loses N/d times c hours on J hosts; keeping d hosts
out costs d times T host-hours. The sum is least at d = sqrt(N J c / T). And since each host is out for m hours in every
cycle, fewer than N m / T at once cannot visit all of them in time.

Hosts that are drained under a job cost nothing until it leaves them, and a job that fails k times in a cycle leaves d
of them each time. With d = J/k it need never be asked. On a small fleet that is more than the first reckoning says.
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from trainmaster.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What the size follows from. Hours and hosts."""

    hosts: int
    largest_job: int
    """Hosts of the job whose interruptions cost most."""
    cycle_h: float
    visit_h: float
    """How long one host is out: operations and verification."""
    interruption_h: float
    """What one interruption costs that job, from its last checkpoint to its first new step."""
    failures_per_1000_node_days: float = 2.34
    """By which that job restarts anyway; the lowest that was published for such fleets (RSC-2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """How many hosts at once, and the words for it."""

    hosts: int
    unit: str = ""
    """leaf, pod or switch: whole units of this kind, of `hosts` hosts at most."""
    why: tuple[str, ...] = ()


def best(fleet: Fleet) -> float:
    """The size with the least loss, before rounding.

    >>> f = Fleet(hosts=2048, largest_job=1984, cycle_h=28 * 24, visit_h=2.0, interruption_h=0.15)
    >>> round(best(f), 1)
    30.1
    """
    return math.sqrt(fleet.hosts * fleet.largest_job * fleet.interruption_h / fleet.cycle_h)


def least(fleet: Fleet) -> int:
    """Fewer than this at once cannot visit every host within the cycle."""
    return max(1, math.ceil(fleet.hosts * fleet.visit_h / fleet.cycle_h))


SHARE_MAX = 0.05
"""Of the hosts: no more are taken out at once for the sake of restarts (ours)."""
_MARGIN = 0.05
"""Of the cycle, in which nothing is hoped for any more."""
_NINE_OF_TEN = 1.28
"""Standard deviations below the mean, under which a count of failures stays in one cycle of ten."""


def by_restarts(fleet: Fleet) -> int:
    """With so many at once the largest job's own restarts serve all its hosts, in nine of ten cycles.

    0 where it does not restart often enough for that.

    >>> f = Fleet(hosts=512, largest_job=430, cycle_h=672, visit_h=2, interruption_h=0.15)
    >>> by_restarts(f), round(best(f), 1)
    (22, 7.0)
    """
    usable_days = fleet.cycle_h / 24.0 * (1.0 - _MARGIN)
    mean = fleet.largest_job * fleet.failures_per_1000_node_days / 1000.0 * usable_days
    sure = mean - _NINE_OF_TEN * math.sqrt(mean)
    wanted = math.ceil(fleet.largest_job / sure) if sure >= 1.0 else fleet.hosts
    return wanted if wanted <= SHARE_MAX * fleet.hosts else 0


def auto(fleet: Fleet) -> int:
    """The size of `auto`."""
    return min(fleet.hosts, max(1, least(fleet), round(best(fleet)), by_restarts(fleet)))


def loss_share(fleet: Fleet, size: int) -> tuple[float, float]:
    """Of the fleet's hours: what stands idle, and what the interruptions of the largest job cost."""
    interruptions = math.ceil(fleet.hosts / size) * fleet.largest_job * fleet.interruption_h
    return size / fleet.hosts, interruptions / (fleet.hosts * fleet.cycle_h)


def size(wanted: str, fleet: Fleet, units: Mapping[str, Collection[str]] | None = None) -> Domain:
    """The domain that a policy asks for.

    Args:
        wanted: A number of hosts, a percentage ("1.5%"), a kind of unit ("leaf", "pod", "switch"), or "auto".
        fleet: For the reckoning.
        units: By name, the hosts of each unit of that kind.

    Raises:
        UsageError: it is none of these, or there is no such unit.
    """
    text = wanted.strip().lower()
    if text == "auto":
        chosen = auto(fleet)
        return Domain(hosts=chosen, why=tuple(_reckoning(fleet, chosen, best(fleet))))
    if re.fullmatch(r"\d+", text) and int(text) >= 1:
        chosen = min(fleet.hosts, int(text))
        return Domain(hosts=chosen, why=(f"{chosen} hosts, as asked for", *_against_best(fleet, chosen)))
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text):
        share = float(match[1]) / 100.0
        if 0.0 < share <= 1.0:
            chosen = max(1, math.floor(fleet.hosts * share))
            return Domain(
                hosts=chosen, why=(f"{wanted} of {fleet.hosts} hosts: {chosen}", *_against_best(fleet, chosen))
            )
    if text in ("leaf", "pod", "switch"):
        if not units:
            raise UsageError(
                f"could not take hosts out by {text}: no {text} is known",
                hint="Slurm's topology tells of leaf switches; pods and switches stand under [maintenance.units]",
            )
        chosen = max(len(hosts) for hosts in units.values())
        words = f"whole units of kind {text}: {len(units)} of up to {chosen} hosts"
        return Domain(hosts=chosen, unit=text, why=(words, *_against_best(fleet, chosen)))
    raise UsageError(
        f"could not read the domain {wanted!r}",
        hint='a number of hosts ("30"), a share ("1.5%"), "leaf", "pod", "switch", or "auto"',
    )


def _reckoning(fleet: Fleet, chosen: int, ideal: float) -> Iterable[str]:
    words = f"sqrt(N J c / T) = sqrt({fleet.hosts} * {fleet.largest_job} * {fleet.interruption_h:g} h"
    yield f"{words} / {fleet.cycle_h:g} h) = {ideal:.1f} hosts lose least"
    low = least(fleet)
    yield f"at least N m / T = {low}: each of {fleet.hosts} hosts is out for {fleet.visit_h:g} h in {fleet.cycle_h:g} h"
    if by_restarts(fleet):
        yield (
            f"{by_restarts(fleet)}: so many at once that the largest job's restarts serve all its hosts in nine of ten "
            f"cycles, if there are {fleet.failures_per_1000_node_days:g} failures per 1000 node-days"
        )
    yield from _cost(fleet, chosen)


def _against_best(fleet: Fleet, chosen: int) -> Iterable[str]:
    yield from _cost(fleet, chosen)
    if chosen < least(fleet):
        hours = fleet.hosts * fleet.visit_h / chosen
        yield f"too few for the cycle: all hosts are visited in {hours:.0f} h, and the cycle has {fleet.cycle_h:g} h"
    yield f"{auto(fleet)} would lose least"


def _cost(fleet: Fleet, chosen: int) -> Iterable[str]:
    idle, broken = loss_share(fleet, chosen)
    cars = math.ceil(fleet.hosts / chosen)
    yield (
        f"{chosen} hosts at once, {cars} cars: {idle:.1%} of the fleet if that many are always out, and {broken:.1%} "
        "if each car interrupts the largest job; cars that wait for its restarts do not"
    )
