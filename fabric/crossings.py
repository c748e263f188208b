"""How good an order of nodes is: the edges of rings, trees and mesh groups that leave a leaf or a pod. Pure.

Standard library only, since the supervisor scores what it was given on the first node of a job.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import ne
from typing import Any, NamedTuple

from trainmaster.fabric.mesh import Axis


class Place(NamedTuple):
    """Where a node hangs; any values that can be compared for equality."""

    pod: Any
    leaf: Any


def ring_crossings(units: Sequence[Any]) -> int:
    """Edges of the ring through all of them in this order that join two different units.

    >>> ring_crossings("aabb"), ring_crossings("abab"), ring_crossings("aaaa")
    (2, 4, 0)
    """
    count = len(units)
    if count < 2:
        return 0
    return int(sum(map(ne, units, units[1:]))) + int(count > 2 and units[0] != units[-1])


def tree_crossings(units: Sequence[Any]) -> int:
    """The same for NCCL's two binary trees, which share no inner node when ranks are even in number."""
    return sum(units[child] != units[parent] for child, parent in tree_edges(len(units)))


def tree_edges(count: int) -> list[tuple[int, int]]:
    """(child, parent) of both trees over so many nodes. Source: Sanders, Speck and Träff, two-tree algorithms, 2009.

    In the first tree a node's height is the number of zeros at the end of its number, and its parent the nearest number
    of the next height that exists. The second is its mirror image, or is shifted by one where the number is odd.
    """
    first = [(node, parent) for node in range(1, count) if (parent := _parent(node, count)) is not None]
    if count % 2:
        second = [((child + 1) % count, (parent + 1) % count) for child, parent in first]
    else:
        second = [(count - 1 - child, count - 1 - parent) for child, parent in first]
    return first + second


def _parent(node: int, count: int) -> int | None:
    step = node & -node
    up = (node ^ step) | (step << 1)
    return up if up < count else node ^ step


def axis_crossings(units: Sequence[Any], *, stride: int, size: int, kind: str) -> int:
    """Edges between different units that an axis has whose groups are `size` positions, each `stride` from the next."""
    if size < 2:
        return 0
    if kind == "all":
        return _pair_crossings(units, stride, size)
    found, block = 0, stride * size
    for start in range(0, len(units), block):
        ahead = units[start + stride : start + block]
        found += sum(map(ne, units[start : start + block - stride], ahead))
        if kind == "ring" and size > 2:
            found += sum(map(ne, units[start : start + stride], units[start + block - stride : start + block]))
    return found


def _pair_crossings(units: Sequence[Any], stride: int, size: int) -> int:
    """Pairs of an all-to-all in different units, as a multiple of a ring's edges: a rank sends size - 1 messages."""
    found, block = 0.0, stride * size
    for start in range(0, len(units), block):
        for offset in range(stride):
            members = units[start + offset : start + block : stride]
            together = sum(count * count for count in Counter(members).values())
            found += (size * size - together) / (size - 1)
    return round(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How nodes in rank order lie in the fabric."""

    nodes: int
    pods: int
    leaves: int
    ring_pod: int
    """Edges of the ring between pods; as many as pods at best, none in one."""
    ring_leaf: int
    tree_pod: int
    """Edges of NCCL's two trees between pods."""
    axes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Axis -> its edges between pods and between leaves, over all of its groups."""

    def as_dict(self) -> dict[str, Any]:
        """For a record."""
        found: dict[str, Any] = {"pods": self.pods, "leaves": self.leaves}
        found |= {"ring_pod": self.ring_pod, "ring_leaf": self.ring_leaf, "tree_pod": self.tree_pod}
        return found | ({"axes": {name: list(counts) for name, counts in self.axes.items()}} if self.axes else {})


def score(places: Sequence[Place], axes: Sequence[Axis] = ()) -> Score:
    """Score nodes in rank order. `axes`: those between nodes, in the order of ranks; none for a job without a mesh."""
    pods, leaves = [place.pod for place in places], [tuple(place) for place in places]
    found, stride = {}, 1
    for axis in axes:
        shape = {"stride": stride, "size": axis.size}
        found[axis.name] = (
            axis_crossings(pods, **shape, kind=axis.kind),
            axis_crossings(leaves, **shape, kind=axis.kind),
        )
        stride *= axis.size
    return Score(
        nodes=len(places),
        pods=len(set(pods)),
        leaves=len(set(leaves)),
        ring_pod=ring_crossings(pods),
        ring_leaf=ring_crossings(leaves),
        tree_pod=tree_crossings(pods),
        axes=found,
    )
