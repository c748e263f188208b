"""In which order a job's nodes get their ranks. Pure; standard library only, since the supervisor orders nodes on the
first node of a job.

NCCL joins nodes into rings and trees in the order of their first ranks and looks at no switch, so the order of nodes is
the ring. Without a mesh that order is best in which neighbours share a leaf, and leaves a pod. With one, the groups of
an axis are spread over the nodes with a stride, and it matters which axis runs fastest along the fabric: `arrange`
tries every order of the axes and takes the one whose traffic crosses least.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from trainmaster.fabric.crossings import Place, axis_crossings
from trainmaster.fabric.mesh import Axis

POD_WEIGHT = 4.0
"""How much worse an edge between pods is than one between leaves, where nobody says how narrow the upper tier is."""


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
