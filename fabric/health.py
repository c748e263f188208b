"""Scores links: how fast each is beside its peers, and how many errors its ports count. Pure.

A score is a share of what the link should carry: 1 sound, 0.25 for one lane of four. Errors divide it further, since
each costs retransmissions: at the limit below, by two.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from trainmaster.fabric.counters import Counters
from trainmaster.fabric.levels import lay_out, switch_levels
from trainmaster.fabric.model import Fabric, Floats

# Errors in an hour that make a link half as good. InfiniBand's limit of one bit in 10^12 is several hundred symbols an
# hour at HDR; a link that was down even once stopped every job across it.
LIMITS_PER_HOUR: Mapping[str, float] = {
    "SymbolErrorCounter": 400.0,
    "LinkErrorRecoveryCounter": 4.0,
    "LinkDownedCounter": 1.0,
    "PortRcvErrors": 40.0,
    "PortRcvRemotePhysicalErrors": 400.0,
    "LocalLinkIntegrityErrors": 4.0,
    "ExcessiveBufferOverrunErrors": 4.0,
}
# A link that is up carries something, however bad it is; 0 is for cables that are not there.
_LOWEST = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Ailment:
    """One link that is not what its peers are."""

    link: int
    score: float
    ends: tuple[str, str]
    """Names of both ends with their ports: "n03 mlx5_2/1", "su001-rail2/7"."""
    host: str
    """The node whose cable it is; empty between switches."""
    device: str
    causes: tuple[str, ...]
    codes: tuple[str, ...] = ()
    """Of each cause, what kind it is: rate, errors, down."""
    ports: tuple[str, str] = ("", "")
    """GUID and port of both ends, "0x0002c903000e0b72/1": names may be given twice."""

    def __str__(self) -> str:
        return f"{self.ends[0]} - {self.ends[1]}: score {self.score:.2f}; {', '.join(self.causes)}"


def scored(fabric: Fabric, counters: Counters | None = None, *, hours: float = 1.0) -> Fabric:
    """The fabric with a score for each link.

    Args:
        fabric: as discovered.
        counters: errors at each port, what they grew by in `hours`.
        hours: the time in which they were counted.
    """
    speed, _ = _speed(fabric)
    badness, _ = _errors(fabric, counters or {}, hours)
    # A saved fabric knows of errors whose counters are not at hand any more.
    score = np.minimum(fabric.links.score, np.maximum(_LOWEST, speed / (1 + badness)))
    return replace(fabric, links=replace(fabric.links, score=score))


def ailments(fabric: Fabric, counters: Counters | None = None, *, hours: float = 1.0) -> tuple[Ailment, ...]:
    """Links with a score below 1 and why, the worst first; arguments as for `scored`."""
    score = scored(fabric, counters, hours=hours).links.score
    speed, usual = _speed(fabric)
    _, words = _errors(fabric, counters or {}, hours)
    found = []
    for link in np.flatnonzero(score < 1).tolist():
        causes = list(words.get(link, ()))
        codes = ["errors"] * len(causes)
        if speed[link] < 1:
            codes.insert(0, "rate")
            lanes, rate = fabric.links.lanes[link], fabric.links.lane_gbps[link]
            causes.insert(0, f"{lanes} lanes of {rate:g} Gbit/s, its peers have {usual[link]:g} Gbit/s in all")
        if score[link] == 0:
            causes.append("down")
            codes.append("down")
        ends, host, device = _names(fabric, link)
        found.append(
            Ailment(
                link=link,
                score=float(score[link]),
                ends=ends,
                host=host,
                device=device,
                causes=tuple(causes),
                codes=tuple(codes),
                ports=ports_of(fabric, link),
            )
        )
    return tuple(sorted(found, key=lambda one: (one.score, one.ends)))


def _speed(fabric: Fabric) -> tuple[Floats, Floats]:
    """[links] The rate of each through the median of its peers', at most 1; and that median.

    Peers are cables between the same two levels, of the same plane. Unknown rates count as usual.
    """
    switches = len(fabric.switches)
    levels = switch_levels(lay_out(fabric), switches)
    planes = np.array([s.plane for s in fabric.switches] + [h.plane for h in fabric.hcas], dtype=np.int64)
    level = np.concatenate([levels, np.full(len(fabric.hcas), -1)])
    links, rate = fabric.links, fabric.links.gbps
    low, high = np.minimum(level[links.a], level[links.b]), np.maximum(level[links.a], level[links.b])
    kind = (planes[links.a] * 200 + low + 1) * 200 + high + 1
    usual = np.zeros(len(links))
    for one in np.unique(kind):
        peers = kind == one
        known = rate[peers & (rate > 0)]
        usual[peers] = np.median(known) if len(known) else 0.0
    speed = np.ones(len(links))
    told = (rate > 0) & (usual > 0)
    speed[told] = np.minimum(1.0, rate[told] / usual[told])
    # Rates of the same generation are written with more or fewer digits.
    return np.where(speed > 0.97, 1.0, speed), usual


def _errors(fabric: Fabric, counters: Counters, hours: float) -> tuple[Floats, dict[int, list[str]]]:
    """[links] The sum of errors through their limits, and the words for those links that have any."""
    badness = np.zeros(len(fabric.links))
    words: dict[int, list[str]] = {}
    if not counters:
        return badness, words
    guids = [switch.guid for switch in fabric.switches] + [hca.guid for hca in fabric.hcas]
    names = {switch.guid: switch.name for switch in fabric.switches}
    names |= {hca.guid: f"{hca.host} {hca.device}".strip() for hca in fabric.hcas}
    links = fabric.links
    at: dict[tuple[str, int], int] = {}
    for owners, ports in ((links.a, links.a_port), (links.b, links.b_port)):
        for link, (owner, port) in enumerate(zip(owners.tolist(), ports.tolist(), strict=True)):
            at[guids[owner], port] = link
    for port, values in counters.items():
        own = at.get(port)
        if own is None:
            continue
        for name, limit in LIMITS_PER_HOUR.items():
            if count := values.get(name, 0):
                badness[own] += count / limit / max(hours, 1e-6)
                words.setdefault(own, []).append(f"{name} {count} at {names[port[0]]}/{port[1]}")
    return badness, words


def ports_of(fabric: Fabric, link: int) -> tuple[str, str]:
    """GUID and port of both ends of a link, the lesser one first."""
    count = len(fabric.switches)
    links = fabric.links
    found = []
    for owner, port in ((int(links.a[link]), links.a_port[link]), (int(links.b[link]), links.b_port[link])):
        guid = fabric.switches[owner].guid if owner < count else fabric.hcas[owner - count].guid
        found.append(f"{guid}/{port}")
    one, other = sorted(found)
    return one, other


def _names(fabric: Fabric, link: int) -> tuple[tuple[str, str], str, str]:
    one, count = fabric.links[link], len(fabric.switches)
    host = device = ""
    names = []
    for port in (one.a, one.b):
        if port.owner < count:
            names.append(f"{fabric.switches[port.owner].name}/{port.number}")
        else:
            hca = fabric.hcas[port.owner - count]
            host, device = hca.host, hca.device
            names.insert(0, f"{host or hca.guid} {device}".strip() + f"/{port.number}")
    return (names[0], names[1]), host, device
