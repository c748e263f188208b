"""Who is slow among those who measured the same. Pure; one rule for stop and check and for `health validate`."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import TypeVar

from trainmaster.health.deep.schedule import Pair
from trainmaster.health.robust import z_scores

NODES_MIN = 3
"""Of two nodes nobody can say which one is slow."""
PAIRS_MIN = 6
"""With fewer pairs of good nodes, one among them cannot stand out: those of four nodes."""
Z_MIN = 4.0
NODE_FACTOR, PAIR_FACTOR = 1.5, 2.0
"""So many times the median time is slow: for a node with most of its partners, for a pair."""
_SIGMA_FLOOR = 0.05
Key = TypeVar("Key", str, Pair)
Times = Mapping[Pair, "float | None"]


def outliers(values: Mapping[Key, float], *, factor: float, count_min: int = NODES_MIN) -> dict[Key, float]:
    """Those times that stand out from the rest, with how many times the median they are.

    >>> outliers({"a": 1.0, "b": 1.1, "c": 0.9, "d": 3.0}, factor=1.5)
    {'d': 2.857142857142857}
    """
    if len(values) < count_min:
        return {}
    median = statistics.median(values.values())
    scores = z_scores(values, floor=_SIGMA_FLOOR)
    return {
        key: value / median
        for key, value in values.items()
        if median > 0 and value >= factor * median and scores[key] >= Z_MIN
    }


def of_pairs(told: Mapping[str, Mapping[str, float | None]]) -> dict[Pair, float | None]:
    """The time of each pair that was tried: that of the slower side; None when either side did not get through.

    >>> of_pairs({"a": {"b": 1.0}, "b": {"a": 2.0}, "c": {"a": None}})
    {('a', 'b'): 2.0, ('a', 'c'): None}
    """
    found: dict[Pair, float | None] = {}
    for node, times in told.items():
        for partner, seconds in times.items():
            pair = (node, partner) if node < partner else (partner, node)
            before = found.get(pair, 0.0)
            found[pair] = None if seconds is None or before is None else max(seconds, before)
    return found


def slow_nodes(nodes: Iterable[str], times: Times) -> dict[str, float]:
    """The nodes that are slow with all partners, with how many times the median they take."""
    # The lower quartile, since whatever disturbs a measurement makes it longer: a node that is slow is so even with its
    # best partners, and one that has met slow ones is quick with the others.
    known = set(nodes)
    mine: dict[str, list[float]] = {}
    for pair, seconds in times.items():
        if seconds is not None:
            for node in known.intersection(pair):
                mine.setdefault(node, []).append(seconds)
    scores = {node: sorted(found)[(len(found) - 1) // 4] for node, found in mine.items()}
    return outliers(scores, factor=NODE_FACTOR)


def slow_pairs(good: Iterable[str], times: Times) -> dict[Pair, float]:
    """The pairs of good nodes that are slow only with each other, with how many times the median they take."""
    known = set(good)
    among = {pair: seconds for pair, seconds in times.items() if seconds is not None and known.issuperset(pair)}
    return dict(sorted(outliers(among, factor=PAIR_FACTOR, count_min=PAIRS_MIN).items()))


def cut_off(nodes: Iterable[str], times: Times) -> list[str]:
    """The nodes that were to meet somebody and got through to nobody."""
    tried = {node for pair in times for node in pair}
    through = {node for pair, seconds in times.items() if seconds is not None for node in pair}
    return [node for node in nodes if node in tried and node not in through]
