"""The axes of a mesh of ranks: what their groups do, how much, and what is left of them between nodes. Pure.

Standard library only, since the supervisor orders nodes by them on the first node of a job.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

AXES_MAX = 6
"""Axes between nodes; 720 orders of them are tried."""


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


def read_mesh(text: str) -> dict[str, int]:
    """Axes and sizes of a text, in its order.

    Raises:
        ValueError: it is no list of axes, names one twice, or a size is no number above 0.

    >>> read_mesh("tp=8, dp=4")
    {'tp': 8, 'dp': 4}
    """
    found: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = (one.strip() for one in part.partition("="))
        if not name or not re.fullmatch(r"0*[1-9][0-9]{0,6}", size):
            raise ValueError(f"{part.strip()[:40]!r} is no axis and its size")
        if name in found:
            raise ValueError(f"the axis {name[:40]} is there twice")
        found[name] = int(size)
    return found


def between_nodes(axes: Sequence[Axis], ranks_per_node: int) -> tuple[Axis, ...]:
    """What is left of the axes between nodes, when ranks fill one node after another.

    Raises:
        ValueError: a group would begin in the middle of a node, or nodes have no ranks.

    >>> [(axis.name, axis.size) for axis in between_nodes(axes_of({"tp": 4, "dp": 8, "pp": 2}), 8)]
    [('dp', 4), ('pp', 2)]
    """
    if ranks_per_node < 1:
        raise ValueError(f"{ranks_per_node} ranks on each node")
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
