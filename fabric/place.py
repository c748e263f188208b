"""Which free nodes a job gets: the fewest pods, then the fewest leaves, sound nodes first. Pure; numpy.

What a set of nodes costs is `Weights`: so much for each pod, for each leaf and for each degraded node. The cheapest set
is found exactly (`allot`): of sound nodes alone, of the best that suffice, and of all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainmaster.fabric.allot import Weights, allot, weights_for
from trainmaster.fabric.model import Ints
from trainmaster.fabric.tree import Tree

SOUND = 0.999
"""A node's score from which on its links count as sound."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placement:
    """Nodes for a job, as numbers of the tree in the fabric's order, and why these."""

    nodes: Ints
    spares: Ints
    pods: int
    leaves: int
    degraded: int
    cost: float
    exact: bool
    """Whether no cheaper set exists; False for a job that fills so much of a cluster that there is little to choose."""
    why: tuple[str, ...]

    def names(self, tree: Tree) -> tuple[str, ...]:
        """The nodes by name, neighbours in the fabric beside each other."""
        return tuple(tree.nodes[number] for number in self.nodes)


def cost_of(tree: Tree, nodes: Sequence[int] | Ints, weights: Weights | None = None) -> float:
    """What any set of nodes costs."""
    chosen, weights = np.asarray(nodes, dtype=np.int64), weights or weights_for(tree)
    pods, leaves = len(np.unique(tree.pod_of[chosen])), len(np.unique(tree.leaf_of[chosen]))
    missing = float((1.0 - tree.score[chosen]).sum())
    return weights.pod * pods + weights.leaf * leaves + weights.degraded * missing


def place(
    tree: Tree,
    free: Any,
    wanted: int,
    *,
    spares: int = 0,
    weights: Weights | None = None,
    groups: tuple[int, int] = (1, 1),
) -> Placement | None:
    """The cheapest `wanted` of the free nodes, or None when there are too few (spares included).

    Args:
        tree: the fabric.
        free: bool [nodes]: which may be taken.
        wanted: nodes that run ranks.
        spares: further nodes, on other leaves where possible, so that what breaks a leaf does not break them as well.
        weights: by default those of the fabric's oversubscription.
        groups: nodes of a group that should stay in one pod, and in one leaf (`mesh.groups_of`): each pod and
            leaf then gives a multiple of it, as long as enough nodes are free for that.
    """
    weights = weights or weights_for(tree)
    there = np.asarray(free, dtype=bool)
    total = int(there.sum())
    if wanted < 1 or spares < 0 or total < wanted + spares:
        return None
    island = tree.island_of_pod[tree.pod_of]
    if len(islands := np.unique(island[there])) > 1:
        # Nothing joins them, so one of them has to hold the whole job; of equals the one with less room.
        smallest_first = sorted(islands.tolist(), key=lambda number: int((there & (island == number)).sum()))
        parts = [
            place(tree, there & (island == number), wanted, spares=spares, weights=weights, groups=groups)
            for number in smallest_first
        ]
        return min((part for part in parts if part is not None), key=lambda part: part.cost, default=None)
    sound = there & (tree.score >= SOUND)
    best: tuple[float, Ints, bool, tuple[int, int]] | None = None
    pools = [there]
    if not (sound == there).all():
        # Of the sound ones alone; of as few of the worst left out as there have to be; of all.
        least = np.sort(tree.score[there])[-wanted]
        pools = [sound, there & (tree.score >= least), there]
    for pool in pools:
        for size in dict.fromkeys((groups, (groups[0], 1), (1, 1))):
            capacity = np.bincount(tree.leaf_of[pool], minlength=len(tree.leaves)).astype(np.int32)
            if (found := allot(tree, capacity, wanted, weights, groups=size)) is not None:
                nodes = _nodes(tree, pool, found[0])
                cost = cost_of(tree, nodes, weights)
                if best is None or cost < best[0] - 1e-9:
                    best = (cost, nodes, found[1], size)
                break
    assert best is not None, "enough are free, and groups of one always fit"
    cost, nodes, exact, size = best
    further = _spares(tree, there, nodes, spares)
    pods, leaves = np.unique(tree.pod_of[nodes]), np.unique(tree.leaf_of[nodes])
    degraded = int((tree.score[nodes] < SOUND).sum())
    why = _explain(tree, there, nodes, further, pods, leaves, size, groups)
    return Placement(
        nodes=nodes,
        spares=further,
        pods=len(pods),
        leaves=len(leaves),
        degraded=degraded,
        cost=cost,
        exact=exact and size == groups,
        why=why,
    )


def _nodes(tree: Tree, free: Any, taken: Ints) -> Ints:
    """The nodes, of each leaf those with the best links."""
    leaves = np.flatnonzero(taken)
    chosen = [_best_nodes(tree, free, leaf, int(taken[leaf])) for leaf in leaves.tolist()]
    return np.sort(np.concatenate(chosen)).astype(np.int32)


def _best_nodes(tree: Tree, free: Any, leaf: int, count: int) -> Ints:
    """Free nodes of a leaf, those with the best links first."""
    low, high = np.searchsorted(tree.leaf_of, [leaf, leaf + 1])
    there = low + np.flatnonzero(free[low:high])
    best: Ints = there[np.argsort(-tree.score[there], kind="stable")[:count]].astype(np.int32)
    return best


def _spares(tree: Tree, free: Any, nodes: Ints, count: int) -> Ints:
    """Further nodes: sound ones first, then in the job's pods but under other leaves, then where holes are small."""
    if not count:
        return np.zeros(0, dtype=np.int32)
    left = free.copy()
    left[nodes] = False
    candidates = np.flatnonzero(left)
    pod, leaf = tree.pod_of[candidates], tree.leaf_of[candidates]
    room = np.bincount(leaf, minlength=len(tree.leaves))
    near = np.isin(pod, np.unique(tree.pod_of[nodes]))
    beside = np.isin(leaf, np.unique(tree.leaf_of[nodes]))
    order = np.lexsort((candidates, room[leaf], ~near, beside, tree.score[candidates] < SOUND))
    return np.sort(candidates[order[:count]]).astype(np.int32)


# --- why --------------------------------------------------------------------------------------------------------------


def _explain(
    tree: Tree,
    free: Any,
    nodes: Ints,
    spares: Ints,
    pods: Ints,
    leaves: Ints,
    size: tuple[int, int],
    groups: tuple[int, int],
) -> tuple[str, ...]:
    """The choice in words."""
    per_pod = {tree.pods[pod]: int((tree.pod_of[nodes] == pod).sum()) for pod in pods.tolist()}
    some = ", ".join(f"{count} in {name}" for name, count in list(per_pod.items())[:6])
    some += f" and {len(per_pod) - 6} more" if len(per_pod) > 6 else ""
    said = [f"{len(nodes)} nodes in {_count(len(pods), 'pod')} under {_count(len(leaves), 'leaf')}: {some}"]
    room = np.bincount(tree.pod_of[free], minlength=len(tree.pods))
    if len(pods) > 1:
        most = np.sort(room)[::-1][: len(pods) - 1]
        if int(most.sum()) < len(nodes):
            largest = "the pod with most room has" if len(most) == 1 else f"the {len(most)} with most room have"
            said.append(f"fewer pods cannot hold it: {largest} {int(most.sum())} free nodes")
        else:
            said.append("fewer pods would mean more leaves, degraded nodes or torn groups than that is worth")
    degraded = nodes[tree.score[nodes] < SOUND]
    avoided = int((free & (tree.score < SOUND)).sum()) - len(degraded)
    if len(degraded):
        names = ", ".join(tree.nodes[node] for node in degraded[:4].tolist())
        said.append(f"{_count(len(degraded), 'degraded node')} had to be taken: {names}")
    if avoided > 0:
        said.append(
            f"{_count(avoided, 'free node')} with degraded links {'was' if avoided == 1 else 'were'} left alone"
        )
    if size != groups:
        said.append("the free nodes do not allow every group of the mesh to stay within its pod or leaf")
    if len(spares):
        apart = int((~np.isin(tree.leaf_of[spares], leaves)).sum())
        said.append(f"{_count(len(spares), 'spare')}, {apart} of them under other leaves")
    return tuple(said)


def _count(number: int, what: str) -> str:
    plural = {"leaf": "leaves"}.get(what, f"{what}s")
    return f"{number} {what if number == 1 else plural}"
