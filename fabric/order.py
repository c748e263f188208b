"""In which order a job's nodes get their ranks, and how good an order is. Pure; standard library only, since the
supervisor orders nodes on the first node of a job.

NCCL joins nodes into rings and trees in the order of their first ranks and looks at no switch, so the order of nodes is
the ring. Without a mesh that order is best in which neighbours share a leaf, and leaves a pod. With one, the groups of
an axis are spread over the nodes with a stride, and it matters which axis runs fastest along the fabric: `arrange`
tries every order of the axes and takes the one whose traffic crosses least.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from operator import ne
from typing import Any, NamedTuple

AXES_MAX = 6
"""Axes between nodes; 720 orders of them are tried."""
POD_WEIGHT = 4.0
"""How much worse an edge between pods is than one between leaves, where nobody says how narrow the upper tier is."""


class Place(NamedTuple):
    """Where a node hangs; any values that can be compared for equality."""

    pod: Any
    leaf: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis of a mesh."""

    name: str
    size: int
    kind: str = "ring"
    """What its groups do: "ring" (all-reduce and its halves), "chain" (send to the next) or "all" (all to all)."""
    volume: float = 1.0
    """Bytes that a rank sends along it in a step, in any unit that all axes share."""


# What an axis of this name usually does, and how much, as a share of what data parallelism moves. Sizes of models
# differ, so whoever knows better says so.
_USUAL = {
    "tp": ("ring", 10.0),
    "cp": ("ring", 2.0),
    "sp": ("ring", 2.0),
    "ep": ("all", 2.0),
    "dp": ("ring", 1.0),
    "fsdp": ("ring", 3.0),
    "pp": ("chain", 0.1),
}
KNOWN_AXES = tuple(_USUAL)


def axes_of(mesh: Mapping[str, int], volumes: Mapping[str, float] | None = None) -> tuple[Axis, ...]:
    """Axes from their sizes, the one first along which ranks are numbered first.

    >>> [axis.kind for axis in axes_of({"tp": 8, "dp": 4, "pp": 2})]
    ['ring', 'ring', 'chain']
    """
    found = []
    for name, size in mesh.items():
        kind, volume = _USUAL.get(name, ("ring", 1.0))
        found.append(Axis(name=name, size=size, kind=kind, volume=(volumes or {}).get(name, volume)))
    return tuple(found)


def between_nodes(axes: Sequence[Axis], ranks_per_node: int) -> tuple[Axis, ...]:
    """What is left of the axes between nodes, when ranks fill one node after another.

    Raises:
        ValueError: a group would begin in the middle of a node.

    >>> [(axis.name, axis.size) for axis in between_nodes(axes_of({"tp": 4, "dp": 8, "pp": 2}), 8)]
    [('dp', 4), ('pp', 2)]
    """
    inside, left = ranks_per_node, []
    for axis in axes:
        here = math.gcd(inside, axis.size)
        if here not in (inside, axis.size):
            raise ValueError(f"{axis.name} of {axis.size} does not fit {inside} ranks that are left of each node")
        inside //= here
        if axis.size > here:
            size = axis.size // here
            left.append(Axis(name=axis.name, size=size, kind=axis.kind, volume=axis.volume))
    if inside > 1:
        raise ValueError(f"the mesh has fewer ranks than one node ({ranks_per_node})")
    if len(left) > AXES_MAX:
        raise ValueError(f"{len(left)} axes run between nodes, at most {AXES_MAX} can be ordered")
    return tuple(left)


def groups_of(axes: Sequence[Axis], *, leaf: int, pod: int) -> tuple[int, int]:
    """How many nodes should stay together in a pod and in a leaf: for `place`.

    Args:
        axes: those between nodes.
        leaf: nodes of a leaf.
        pod: nodes of a pod.

    The busiest axes that fit are kept together, busiest first.

    >>> groups_of(axes_of({"ep": 8, "dp": 16, "pp": 4}), leaf=32, pod=384)
    (128, 8)
    """
    found = []
    for room in (pod, leaf):
        size = 1
        for axis in sorted(axes, key=lambda axis: -axis.volume):
            if size * axis.size > room // 2:
                break
            size *= axis.size
        found.append(size)
    return found[0], found[1]


# --- crossings --------------------------------------------------------------------------------------------------------


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


# --- the order of a mesh ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """Which node gets which ranks."""

    order: tuple[int, ...]
    """[node rank] Which of the given places it is."""
    along: tuple[str, ...]
    """The axes as they run along the fabric, the one first whose groups are nearest."""
    cost: float
    """Volume times crossings, of all axes."""
    cost_as_given: float
    """The same if nodes simply had their ranks along the fabric."""


def arrange(places: Sequence[Place], axes: Sequence[Axis], *, pod_weight: float = POD_WEIGHT) -> Arrangement:
    """The order of ranks whose traffic crosses least between pods and leaves.

    Args:
        places: the job's nodes, those of one leaf and of one pod beside each other.
        axes: those between nodes, in the order in which ranks are numbered; their sizes make up the number of nodes.
        pod_weight: cost of an edge between pods, in edges between leaves.
    """
    count = len(places)
    assert math.prod(axis.size for axis in axes) == count, "a mesh has as many places as its axes say"
    # Small numbers compare faster than whatever names the places have.
    numbers: dict[Any, int] = {}
    pod_ids = [numbers.setdefault(place.pod, len(numbers)) for place in places]
    numbers = {}
    leaf_ids = [numbers.setdefault(place, len(numbers)) for place in places]
    best: tuple[float, tuple[Axis, ...], list[int]] | None = None
    as_given = 0.0
    for along in permutations(axes):
        # Groups of any run of the fastest axes may be what fits a unit, so each of their sizes is tried.
        for line in _lines(places, along):
            pods, leaves = [pod_ids[at] for at in line], [leaf_ids[at] for at in line]
            cost, stride = 0.0, 1
            for axis in along:
                shape = {"stride": stride, "size": axis.size}
                crossed = pod_weight * axis_crossings(pods, **shape, kind=axis.kind)
                crossed += axis_crossings(leaves, **shape, kind=axis.kind)
                cost += axis.volume * crossed
                stride *= axis.size
                if best is not None and cost >= best[0]:
                    break
            if best is None:
                as_given = cost
            if best is None or cost < best[0]:
                best = (cost, along, line)
    if best is None:
        return Arrangement(order=tuple(range(count)), along=(), cost=0.0, cost_as_given=0.0)
    cost, along, line = best
    ranks = _ranks_along(axes, along)
    order = [0] * count
    for at, rank in zip(line, ranks, strict=True):
        order[rank] = at
    return Arrangement(order=tuple(order), along=tuple(axis.name for axis in along), cost=cost, cost_as_given=as_given)


def _lines(places: Sequence[Place], along: Sequence[Axis]) -> list[list[int]]:
    """Ways to walk through the places: as they come, and such that units that hold whole groups come first.

    What is left over of the other units then lies together, instead of shifting every group that follows.
    """
    natural = list(range(len(places)))
    lines, size = [natural], 1
    pods: dict[Any, list[int]] = {}
    for at in natural:
        pods.setdefault(places[at].pod, []).append(at)
    for axis in along[:-1]:
        size *= axis.size
        walked: list[int] = []
        for members in sorted(pods.values(), key=lambda members: len(members) % size != 0):
            leaves: dict[Any, list[int]] = {}
            for at in members:
                leaves.setdefault(places[at].leaf, []).append(at)
            for nodes in sorted(leaves.values(), key=lambda nodes: len(nodes) % size != 0):
                walked += nodes
        if walked not in lines:
            lines.append(walked)
    return lines


def _ranks_along(axes: Sequence[Axis], along: Sequence[Axis]) -> list[int]:
    """[position] The node rank of each position, when axes run along the positions in the order of `along`."""
    strides, stride = {}, 1
    for axis in axes:
        strides[axis.name] = stride
        stride *= axis.size
    ranks = [0]
    for axis in along:
        ranks = [rank + step * strides[axis.name] for step in range(axis.size) for rank in ranks]
    return ranks


# --- for other launchers ----------------------------------------------------------------------------------------------


def hostfile(nodes: Sequence[str], *, tasks_per_node: int = 1) -> str:
    """A file for SLURM_HOSTFILE: `srun --distribution=arbitrary` then gives ranks to nodes in just this order.

    >>> hostfile(["n2", "n1"], tasks_per_node=2).split()
    ['n2', 'n2', 'n1', 'n1']
    """
    return "".join(f"{node}\n" * tasks_per_node for node in nodes)


def rank_map(nodes: Sequence[str]) -> str:
    """Lines "name rank" that a script can look its node up in, for torchrun's static rendezvous: --node-rank.

    >>> rank_map(["n2", "n1"])
    'n2 0\\nn1 1\\n'
    """
    return "".join(f"{node} {rank}\n" for rank, node in enumerate(nodes))
