"""How well each node is joined to the fabric: a number from 0 to 1. Pure."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from trainmaster.fabric.levels import Layout
from trainmaster.fabric.model import Fabric, Floats, Ints

# So many of a plane's leaf switches have to agree on how many uplinks they have before one is said to lack some.
_AGREE = 0.75
_PEERS_MIN = 3


def node_scores(fabric: Fabric, layout: Layout, levels: Ints) -> Floats:
    """[nodes] The sum of the scores of a node's links through the number of links that nodes of its kind have.

    A node that lacks one of eight rails has 0.875, one with a link of score 0.5 has 0.9375.
    """
    count = len(layout.nodes)
    cables = np.bincount(layout.on_node, minlength=count)
    # Behind a leaf whose uplinks are bad or missing, a good cable is worth less.
    ends = np.concatenate([layout.low, layout.high])
    trunks = np.concatenate([layout.trunk_link, layout.trunk_link])
    sums = np.bincount(ends, weights=fabric.links.score[trunks], minlength=len(fabric.switches))
    there = np.bincount(ends, minlength=len(fabric.switches))
    above = sums / np.maximum(there + uplinks_missing(fabric, layout, levels), 1)
    above[there == 0] = 1.0
    worth = fabric.links.score[layout.on_link] * above[layout.on_switch]
    total = np.bincount(layout.on_node, weights=worth, minlength=count)
    expected = _expected(layout.nodes, cables.tolist())
    return np.minimum(1.0, total / np.maximum(expected, 1))


def uplinks_missing(fabric: Fabric, layout: Layout, levels: Ints) -> Ints:
    """[switches] How many cables to other switches a leaf switch lacks beside its peers, those of its plane.

    A leaf switch with fewer nodes may have fewer uplinks in proportion, and where peers differ nothing is missing.
    """
    count = len(fabric.switches)
    up = np.bincount(np.concatenate([layout.low, layout.high]), minlength=count)
    down = np.bincount(layout.on_switch, minlength=count)
    plane = np.fromiter((switch.plane for switch in fabric.switches), dtype=np.int64, count=count)
    missing = np.zeros(count, dtype=np.int64)
    for one in np.unique(plane):
        peers = np.flatnonzero((levels == 0) & (plane == one))
        if len(peers) < _PEERS_MIN:
            continue
        usual = int(np.bincount(up[peers]).argmax())
        if np.count_nonzero(up[peers] == usual) < _AGREE * len(peers):
            continue
        full = int(np.bincount(down[peers]).argmax())
        poor = peers[(up[peers] < usual) & (up[peers] * full < usual * down[peers])]
        missing[poor] = usual - up[poor]
    return missing


def kinds_of(names: Sequence[str]) -> list[str]:
    """The kind of each node: nodes are of one kind whose names differ in digits only."""
    return [re.sub(r"\d+", "", name) for name in names]


def _expected(names: tuple[str, ...], cables: list[int]) -> Floats:
    """[nodes] How many cables most nodes of a kind have."""
    kinds = kinds_of(names)
    seen: dict[str, Counter[int]] = defaultdict(Counter)
    for kind, number in zip(kinds, cables, strict=True):
        seen[kind][number] += 1
    usual = {kind: max(counter, key=lambda number: (counter[number], number)) for kind, counter in seen.items()}
    return np.array([usual[kind] for kind in kinds], dtype=np.float64)
