"""Who meets whom, and when: a tournament in which every pair of nodes meets once. Pure."""

from __future__ import annotations

from collections.abc import Sequence

Pair = tuple[str, str]


def count(nodes: int) -> int:
    """How many rounds it takes: n - 1, or n where one node rests in each."""
    return 0 if nodes < 2 else nodes - 1 + nodes % 2


def rounds(nodes: Sequence[str], most: int | None = None) -> tuple[tuple[Pair, ...], ...]:
    """Rounds of pairs: in each round every node has at most one partner, and over all rounds each other node once.

    The circle method: the first node stays, the others move on by one seat a round. `most`: only the first so many.

    >>> rounds(["a", "b", "c", "d"])
    ((('a', 'd'), ('b', 'c')), (('a', 'c'), ('d', 'b')), (('a', 'b'), ('c', 'd')))
    """
    seats: list[str | None] = [*nodes, *([None] if len(nodes) % 2 else [])]
    found = []
    for _ in range(count(len(nodes)) if most is None else min(most, count(len(nodes)))):
        half = len(seats) // 2
        facing = zip(seats[:half], reversed(seats[half:]))  # noqa: B905 - new in 3.10
        found.append(tuple((one, other) for one, other in facing if one is not None and other is not None))
        seats = [seats[0], seats[-1], *seats[1:-1]]
    return tuple(found)


def fitting(total: int, *, round_s: float, left_s: float) -> int:
    """How many of `total` rounds fit into the time that is left; at least one, where there is one.

    A node's speed shows after a few partners; only a slow pair needs all rounds to be found.

    >>> fitting(511, round_s=0.7, left_s=60.0), fitting(3, round_s=0.7, left_s=60.0)
    (85, 3)
    """
    return min(total, max(1, int(left_s / round_s)))


def partner_of(node: str, pairs: Sequence[Pair]) -> str | None:
    """Whom a node meets in a round."""
    for one, other in pairs:
        if node in (one, other):
            return other if node == one else one
    return None
