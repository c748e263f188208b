"""How well each node is joined to the fabric: a number from 0 to 1. Pure."""

import re
from collections import Counter, defaultdict

import numpy as np

from trainmaster.fabric.levels import Layout
from trainmaster.fabric.model import Fabric, Floats


def node_scores(fabric: Fabric, layout: Layout) -> Floats:
    """[nodes] The sum of the scores of a node's links through the number of links that nodes of its kind have.

    A node that lacks one of eight rails has 0.875, one with a link of score 0.5 has 0.9375.
    """
    count = len(layout.nodes)
    cables = np.bincount(layout.on_node, minlength=count)
    # Behind a leaf whose uplinks are bad, a good cable is worth less.
    ends = np.concatenate([layout.low, layout.high])
    trunks = np.concatenate([layout.trunk_link, layout.trunk_link])
    sums = np.bincount(ends, weights=fabric.links.score[trunks], minlength=len(fabric.switches))
    above = sums / np.maximum(np.bincount(ends, minlength=len(fabric.switches)), 1)
    above[np.bincount(ends, minlength=len(fabric.switches)) == 0] = 1.0
    worth = fabric.links.score[layout.on_link] * above[layout.on_switch]
    total = np.bincount(layout.on_node, weights=worth, minlength=count)
    expected = _expected(layout.nodes, cables.tolist())
    return np.minimum(1.0, total / np.maximum(expected, 1))


def _expected(names: tuple[str, ...], cables: list[int]) -> Floats:
    """[nodes] How many cables most nodes of a kind have. Nodes are of one kind whose names differ in digits only."""
    kinds = [re.sub(r"\d+", "", name) for name in names]
    seen: dict[str, Counter[int]] = defaultdict(Counter)
    for kind, number in zip(kinds, cables, strict=True):
        seen[kind][number] += 1
    usual = {kind: max(counter, key=lambda number: (counter[number], number)) for kind, counter in seen.items()}
    return np.array([usual[kind] for kind in kinds], dtype=np.float64)
