"""Where the next jobs would best go, worked out beforehand: pods for waiting jobs, a table for those to come. Pure.

The free nodes are shared out to the waiting jobs in their order, each in the fewest pods that hold it. A job that does
not fit yet is given the nodes that are free and those of the running jobs that end next. What is left is the table: by
number of nodes, sets of pods that hold so many, the best first, each as if those before it were taken.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainmaster.fabric.place import Placement, place
from trainmaster.fabric.steer import pods_first
from trainmaster.fabric.tree import Tree

SETS_MAX = 4
"""Sets of pods for one size: as many jobs of that size, submitted between two plans, find a place of their own."""
WAITING_MAX = 200
"""Waiting jobs that are looked at; those far behind will see other nodes free when their turn comes."""
_STEPS_PER_DOUBLING = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A partition."""

    name: str
    nodes: frozenset[str]
    """Those that can be given to jobs now or once others have ended."""
    free: frozenset[str]
    features: frozenset[str] = frozenset()
    """What every node of the partition has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A job that has no nodes yet."""

    job_id: int
    partition: str
    nodes: int
    left_out: frozenset[str] = frozenset()
    """Nodes that it must not get (`--exclude`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Busy:
    """A job that holds nodes until it ends."""

    nodes: frozenset[str]
    end_time: float
    """Seconds since the epoch; by its time limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a waiting job would go."""

    job_id: int
    pods: tuple[int, ...]
    """Numbers of the tree; none where any pod will do."""
    now: bool
    """Whether enough nodes are free already."""
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What jobs of a partition that come now are told."""

    partition: str
    features: tuple[str, ...]
    free: tuple[int, ...]
    """[pods] Nodes that are free and promised to nobody."""
    sizes: tuple[tuple[int, tuple[tuple[int, ...], ...]], ...]
    """Number of nodes, and sets of pods that hold so many; sizes grow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foresight:
    """All of it."""

    places: tuple[Place, ...]
    tables: tuple[Table, ...]


def foresee(tree: Tree, parts: Sequence[Part], waiting: Sequence[Waiting], busy: Iterable[Busy]) -> Foresight:
    """Share the nodes out.

    Args:
        tree: the fabric.
        parts: the partitions to plan for; one with nodes in fewer than two pods needs no plan and gets none.
        waiting: jobs in the order in which Slurm would start them.
        busy: jobs that run.
    """
    usable = {part.name: _mask(tree, part.nodes) for part in parts}
    usable = {name: mask for name, mask in usable.items() if len(np.unique(tree.pod_of[mask])) > 1}
    free = {part.name: _mask(tree, part.free) & usable[part.name] for part in parts if part.name in usable}
    ending = [(one.end_time, _mask(tree, one.nodes)) for one in busy]
    ending.sort(key=lambda entry: entry[0])
    promised = np.zeros(len(tree.nodes), dtype=bool)
    places = []
    for job in waiting[:WAITING_MAX]:
        if job.partition not in usable:
            continue
        barred = promised | _mask(tree, job.left_out)
        found, now = _earliest(tree, free[job.partition] & ~barred, usable[job.partition] & ~barred, ending, job.nodes)
        if found is None:
            continue
        promised[found.nodes] = True
        pods = _pods(tree, found)
        # Slurm refuses a job for whose pods it is too large even when they are empty; here they never are too small.
        all_pods = set(np.unique(tree.pod_of[usable[job.partition]]).tolist())
        narrow = () if set(pods) >= all_pods or job.nodes < 2 else pods
        places.append(Place(job_id=job.job_id, pods=narrow, now=now, why=found.why))
    known: dict[bytes, tuple[tuple[int, tuple[tuple[int, ...], ...]], ...]] = {}
    tables = []
    for part in parts:
        if part.name not in usable:
            continue
        left = free[part.name] & ~promised
        key = left.tobytes() + usable[part.name].tobytes()
        if key not in known:
            known[key] = _sizes(tree, left, set(np.unique(tree.pod_of[usable[part.name]]).tolist()))
        counts = np.bincount(tree.pod_of[left], minlength=len(tree.pods))
        tables.append(
            Table(
                partition=part.name,
                features=tuple(sorted(part.features)),
                free=tuple(counts.tolist()),
                sizes=known[key],
            )
        )
    return Foresight(places=tuple(places), tables=tuple(tables))


def _earliest(
    tree: Tree, free: Any, usable: Any, ending: Sequence[tuple[float, Any]], wanted: int
) -> tuple[Placement | None, bool]:
    """The best place among the nodes that are free as soon as enough are, and whether they are now."""
    there = free.copy()
    now = True
    count = int(there.sum())
    for _, nodes in ending:
        if count >= wanted:
            break
        now = False
        there |= nodes & usable
        count = int(there.sum())
    return place(tree, there, wanted, weights=pods_first(tree)), now


def _sizes(tree: Tree, free: Any, all_pods: set[int]) -> tuple[tuple[int, tuple[tuple[int, ...], ...]], ...]:
    found = []
    for size in sizes_to_plan(int(free.sum())):
        left = free.copy()
        sets: list[tuple[int, ...]] = []
        for _ in range(SETS_MAX):
            placed = place(tree, left, size, weights=pods_first(tree))
            if placed is None:
                break
            pods = _pods(tree, placed)
            if pods not in sets and not set(pods) >= all_pods:
                sets.append(pods)
            left[placed.nodes] = False
        if sets:
            found.append((size, tuple(sets)))
    return tuple(found)


def sizes_to_plan(most: int) -> tuple[int, ...]:
    """The numbers of nodes that the table knows; a job between two of them is told what holds the larger.

    >>> sizes_to_plan(24)
    (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20, 22, 24)
    """
    sizes, size = [], 2
    while size <= most:
        sizes.append(size)
        size += max(1, (1 << (size.bit_length() - 1)) // _STEPS_PER_DOUBLING)
    return tuple(sizes)


def labels(tree: Tree, features: Mapping[str, frozenset[str]]) -> tuple[str, ...]:
    """[pods] The feature that stands for each pod; "" for a pod whose nodes do not all have it, or not they alone.

    Args:
        tree: the fabric.
        features: of each of Slurm's nodes.
    """
    holders: dict[str, set[str]] = {}
    for node, words in features.items():
        for word in words:
            holders.setdefault(word, set()).add(node)
    found = []
    for number, pod in enumerate(tree.pods):
        low, high = np.searchsorted(tree.pod_of, [number, number + 1])
        nodes = {node for node in tree.nodes[low:high] if node in features}
        found.append(label(pod) if nodes and holders.get(label(pod)) == nodes else "")
    return tuple(found)


def label(pod: str) -> str:
    """The feature by which jobs are told to prefer a pod.

    >>> label("pod01")
    'tm-pod01'
    """
    return f"tm-{pod}"


def _pods(tree: Tree, found: Placement) -> tuple[int, ...]:
    return tuple(np.unique(tree.pod_of[found.nodes]).tolist())


def _mask(tree: Tree, names: Iterable[str]) -> Any:
    mask = np.zeros(len(tree.nodes), dtype=bool)
    mask[[tree.index[name] for name in names if name in tree.index]] = True
    return mask
