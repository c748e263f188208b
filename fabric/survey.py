"""What one look at the fabric adds to the last: scores, evidence by node, and how long errors are remembered. Pure.

A rate, a missing rail or a wrong socket is seen at each look and gone once it is mended. Errors are not: a link that no
job uses counts none. So a link is held to the errors that it had for a while (`Memory.hold_s`), mended or not.
"""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from trainmaster.fabric.cabling import wrong_sockets
from trainmaster.fabric.counters import Counters
from trainmaster.fabric.health import Ailment, ailments, ports_of, scored
from trainmaster.fabric.link_health import BadLink, BadNode, Evidence, LinkHealth
from trainmaster.fabric.merge import Merged, merge
from trainmaster.fabric.model import Fabric, naturally
from trainmaster.fabric.score import kinds_of, uplinks_missing
from trainmaster.fabric.topology_conf import fold, unfold

# What a cable in a wrong socket is worth: it carries everything, over a longer way that others use too.
_STRAY = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is known besides this look."""

    last: LinkHealth | None = None
    """What the look before has published."""
    hold_s: float = 86400.0
    """How long a link is held to errors that it counted."""
    good_for_s: float = 21600.0
    """How long what is published now may be acted upon."""
    slurm_nodes: Collection[str] | None = None
    """Slurm's nodes: no other is missed. None when nobody asked."""


def survey(
    fabric: Fabric, memory: Memory, *, now_s: float, counters: Counters | None = None, hours: float = 1.0
) -> LinkHealth:
    """What is to be published after a look.

    Args:
        fabric: as it was found.
        memory: of earlier looks.
        now_s: epoch seconds.
        counters: what ports counted in `hours`.
        hours: the time in which they did.
    """
    last = memory.last or LinkHealth(taken_at_s=now_s, good_for_s=0.0)
    held = {
        link.ports: link
        for link in last.links
        if "errors" in link.codes and 0 <= now_s - link.seen_at_s <= memory.hold_s
    }
    before = scored(fabric, counters, hours=hours)
    seen = {one.ports: one for one in ailments(before, counters, hours=hours)}
    worse, links = _with_held(before, held, seen, now_s)
    merged = merge(worse)
    evidence = _evidence(merged, links, now_s)
    tree = merged.tree
    strays: dict[str, int] = defaultdict(int)
    for stray in wrong_sockets(merged):
        strays[stray.host] += 1
        evidence[stray.host].append(_one("wrong-socket", stray.device, stray.where, now_s, score=_STRAY))
    cables = np.bincount(merged.layout.on_node, minlength=len(merged.layout.nodes))
    count = dict(zip(merged.layout.nodes, cables.tolist(), strict=True))
    nodes = {}
    for number, name in enumerate(tree.nodes):
        score = float(tree.score[number]) - (1 - _STRAY) * strays[name] / max(1, count[name])
        if score < 0.9999:
            nodes[name] = BadNode(score=round(max(0.0, score), 4), evidence=tuple(evidence[name]))
    known = {*(unfold(last.known) if last.known else ()), *tree.nodes}
    if memory.slurm_nodes is not None:
        known &= set(memory.slurm_nodes)
    for name in known - set(tree.nodes):
        gone = _one("absent", "", "no adapter of it is on the fabric any more", now_s, score=0.0)
        nodes[name] = BadNode(score=0.0, evidence=(gone,))
    return LinkHealth(
        taken_at_s=now_s,
        good_for_s=memory.good_for_s,
        source=fabric.source,
        known=fold(naturally(known)),
        nodes={name: nodes[name] for name in naturally(nodes)},
        links=tuple(links),
    )


def apply(fabric: Fabric, health: LinkHealth) -> Fabric:
    """The fabric with the scores of those of its links that the file tells of."""
    scores = {link.ports: link.score for link in health.links}
    if not scores:
        return fabric
    score = fabric.links.score.copy()
    for link in range(len(score)):
        score[link] = min(score[link], scores.get(ports_of(fabric, link), 1.0))
    return replace(fabric, links=replace(fabric.links, score=score))


def _with_held(
    fabric: Fabric, held: dict[tuple[str, str], BadLink], seen: dict[tuple[str, str], Ailment], now_s: float
) -> tuple[Fabric, list[BadLink]]:
    """The fabric with what is held against its links, and all links that are not sound, the worst first."""
    score = fabric.links.score.copy()
    bad: dict[tuple[str, str], BadLink] = {}
    for link in range(len(score)) if held else ():
        if (old := held.get(ports_of(fabric, link))) is not None:
            score[link] = min(score[link], old.score)
            bad[old.ports] = replace(old, score=round(float(score[link]), 4))
    for ports, one in seen.items():
        then = bad.get(ports)
        bad[ports] = BadLink(
            ports=ports,
            ends=one.ends,
            host=one.host,
            device=one.device,
            score=then.score if then else round(one.score, 4),
            causes=one.causes,
            codes=one.codes,
            seen_at_s=now_s,
        )
        if then and "errors" not in one.codes:
            # What else is wrong with it is seen now; its errors were seen then.
            old_ones = [cause for cause, code in zip(then.causes, then.codes, strict=True) if code == "errors"]
            bad[ports] = replace(
                bad[ports],
                causes=(*old_ones, *one.causes),
                codes=("errors",) * len(old_ones) + one.codes,
                seen_at_s=then.seen_at_s,
            )
    worse = replace(fabric, links=replace(fabric.links, score=score))
    return worse, sorted(bad.values(), key=lambda link: (link.score, link.ends))


def _evidence(merged: Merged, links: list[BadLink], now_s: float) -> dict[str, list[Evidence]]:
    """By node, what speaks against it."""
    found: dict[str, list[Evidence]] = defaultdict(list)
    for link in links:
        for code in dict.fromkeys(link.codes) if link.host else ():
            words = [cause for cause, kind in zip(link.causes, link.codes, strict=True) if kind == code]
            found[link.host].append(_one(code, link.device, ", ".join(words), link.seen_at_s, score=link.score))
    for host, device in _rails_missing(merged):
        down = "no cable of it is up, as the fabric sees it"
        found[host].append(_one("rail-missing", device, down, now_s, score=0.0))
    missing = uplinks_missing(merged.fabric, merged.layout, merged.levels)
    for switch in np.flatnonzero(missing).tolist():
        lack = f"{merged.fabric.switches[switch].name} has {int(missing[switch])} uplinks less than its peers"
        below = merged.layout.on_node[merged.layout.on_switch == switch]
        for node in np.unique(below).tolist():
            found[merged.layout.nodes[node]].append(_one("uplink", "", lack, now_s))
    return found


def _rails_missing(merged: Merged) -> list[tuple[str, str]]:
    """Node and adapter, where more than half of the nodes of its kind have a cable on an adapter of that name."""
    layout, hcas = merged.layout, merged.fabric.hcas
    devices: list[set[str]] = [set() for _ in layout.nodes]
    for node, hca in zip(layout.on_node.tolist(), layout.on_hca.tolist(), strict=True):
        devices[node].add(hcas[hca].device)
    members: dict[str, list[int]] = defaultdict(list)
    for number, kind in enumerate(kinds_of(layout.nodes)):
        members[kind].append(number)
    found = []
    for numbers in members.values():
        usual = [
            device
            for device in naturally({device for number in numbers for device in devices[number]})
            if sum(device in devices[number] for number in numbers) * 2 > len(numbers)
        ]
        for number in numbers:
            found += [(layout.nodes[number], device) for device in usual if device not in devices[number]]
    return found


def _one(code: str, subject: str, detail: str, seen_at_s: float, *, score: float = 1.0) -> Evidence:
    return Evidence(code=code, subject=subject, detail=detail, score=score, seen_at_s=seen_at_s)
