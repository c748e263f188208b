"""Where everything in the picture of a fabric goes: pods in a grid, leaves in a pod, nodes in a leaf. Pure."""

import math
from dataclasses import dataclass

import numpy as np

from trainmaster.fabric.tree import Tree

_ASPECT = 1.5
_HOLES = 6.0
"""How much worse an empty place in a grid is than a shape that is not quite the wanted one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Sizes of everything, in pixels."""

    cell: float
    gap: float
    across: int
    """Nodes side by side in a leaf."""
    leaf_width: float
    leaf_height: float
    leaves_across: int
    pod_width: float
    pod_height: float
    pods_across: int
    rail: float
    named: bool
    """Whether nodes have room for their names."""


def grid_of(tree: Tree, rails: int) -> Grid:
    """The sizes for a fabric; `rails`: strips drawn of each leaf, 0 for none."""
    nodes = len(tree.nodes)
    cell = 34.0 if nodes <= 96 else 17.0 if nodes <= 600 else 10.0 if nodes <= 4500 else 6.0
    gap = max(1.0, cell * 0.12)
    widest = int(tree.leaf_sizes.max(initial=1))
    across = widest if widest <= 4 else 4 if widest <= 8 else 8 if widest <= 32 else 16
    rows = math.ceil(widest / across)
    rail = max(3.0, cell * 0.22) if rails else 0.0
    leaf_width = across * (cell + gap) + 3 * gap
    leaf_height = rows * (cell + gap) + 13 + rail + 3 * gap
    leaves = int(np.bincount(tree.pod_of_leaf, minlength=len(tree.pods)).max(initial=1))
    leaves_across = columns_of(leaves, leaf_width + 10, leaf_height + 10, aspect=1.3 if len(tree.pods) > 2 else 2.0)
    pod_width = leaves_across * (leaf_width + 10) + 14
    pod_height = math.ceil(leaves / leaves_across) * (leaf_height + 10) + 34
    return Grid(
        cell=cell,
        gap=gap,
        across=across,
        leaf_width=leaf_width,
        leaf_height=leaf_height,
        leaves_across=leaves_across,
        pod_width=pod_width,
        pod_height=pod_height,
        pods_across=columns_of(len(tree.pods), pod_width + 16, pod_height + 16, aspect=_ASPECT),
        rail=rail,
        named=cell >= 30 and max((len(name) for name in tree.nodes), default=0) <= 7,
    )


def columns_of(count: int, width: float, height: float, *, aspect: float) -> int:
    """How many columns bring a grid nearest to an aspect, with few empty places."""

    def off(columns: int) -> float:
        rows = math.ceil(count / columns)
        return abs(math.log(columns * width / (rows * height) / aspect)) + _HOLES * (rows * columns / count - 1)

    return min(range(1, max(1, count) + 1), key=off)


def positions(
    tree: Tree, grid: Grid
) -> tuple[list[tuple[float, float]], list[tuple[float, float]], list[tuple[float, float]]]:
    """The upper left corners (x, y) of leaves, nodes and pods, in pixels."""
    pods = [
        ((pod % grid.pods_across) * (grid.pod_width + 16), (pod // grid.pods_across) * (grid.pod_height + 16))
        for pod in range(len(tree.pods))
    ]
    leaves: list[tuple[float, float]] = []
    seen: dict[int, int] = {}
    for pod in tree.pod_of_leaf.tolist():
        slot = seen[pod] = seen.get(pod, -1) + 1
        x = pods[pod][0] + 12 + (slot % grid.leaves_across) * (grid.leaf_width + 10)
        y = pods[pod][1] + 30 + (slot // grid.leaves_across) * (grid.leaf_height + 10)
        leaves.append((x, y))
    nodes: list[tuple[float, float]] = []
    first = np.searchsorted(tree.leaf_of, np.arange(len(tree.leaves)))
    for node, leaf in enumerate(tree.leaf_of.tolist()):
        slot = node - int(first[leaf])
        x = leaves[leaf][0] + 2 * grid.gap + (slot % grid.across) * (grid.cell + grid.gap)
        y = leaves[leaf][1] + 13 + grid.rail + 2 * grid.gap + (slot // grid.across) * (grid.cell + grid.gap)
        nodes.append((x, y))
    return leaves, nodes, pods
