"""Which free nodes a job gets: the fewest pods, then the fewest leaves, sound nodes first. Pure; numpy.

What a set of nodes costs is `Weights`: so much for each pod, for each leaf and for each degraded node. The cheapest set
is found exactly. Within a pod the best leaves are always those with most free nodes, so a pod is a short table "so many
leaves hold so many nodes", and a knapsack over these tables says how many nodes k pods and m leaves can hold at most.
Of the many sets that cost the same one is taken that leaves large holes for others: best fit, from pods to leaves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainmaster.fabric.model import Ints
from trainmaster.fabric.tree import Tree

SOUND = 0.999
"""A node's score from which on its links count as sound."""
_NONE = -(1 << 30)
_CELLS_MAX = 1_000_000
"""Cells of the knapsack beyond which the largest pods are simply taken: such a job fills most of a cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What a placement costs; only their ratios count."""

    pod: float
    leaf: float = 1.0
    degraded: float = 4.0
    """For a node whose score is 0; one of 0.5 costs half of it."""


def weights_for(tree: Tree) -> Weights:
    """Weights from the fabric's oversubscription.

    Where pods have less uplink than their nodes could fill, a further pod costs more than all leaves that it could
    save: every ring then has two more links over the narrow tier. Where they have as much, a pod is one hop more.
    """
    ratio = tree.pod_oversubscription
    leaves_per_pod = max(1.0, len(tree.leaves) / max(1, len(tree.pods)))
    return Weights(pod=ratio * leaves_per_pod if ratio > 1.05 else 1.0, leaf=max(1.0, tree.leaf_oversubscription))


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
        groups: nodes of a group that should stay in one pod, and in one leaf (`order.groups_of` a mesh): each pod and
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
    pools = [sound, there] if int(sound.sum()) not in (total, 0) else [there]
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


# --- how many nodes of which leaf -------------------------------------------------------------------------------------


def allot(
    tree: Tree, capacity: Ints, wanted: int, weights: Weights, *, groups: tuple[int, int] = (1, 1)
) -> tuple[Ints, bool] | None:
    """How many nodes each leaf gives, and whether no choice is cheaper; None when groups of this size do not fit.

    Args:
        tree: the fabric.
        capacity: [leaves] free nodes under each leaf.
        wanted: nodes in all.
        weights: what pods and leaves cost.
        groups: see `place`.
    """
    per_pod, per_leaf = groups
    usable = capacity - capacity % per_leaf
    tables = _tables(tree, usable)
    if per_pod > 1:
        tables = tables - tables % per_pod
    if int(tables[:, -1].sum()) < wanted:
        return None
    counts, exact = _leaves_per_pod(tables, wanted, weights)
    return _fill(tree, usable, _quotas(tables, counts, wanted), counts), exact


def _tables(tree: Tree, capacity: Ints) -> Ints:
    """[pods, leaves of a pod + 1] How many nodes a pod's m fullest leaves hold."""
    order = np.lexsort((-capacity, tree.pod_of_leaf))
    sizes = np.bincount(tree.pod_of_leaf, minlength=len(tree.pods))
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    column = np.arange(len(order)) - np.repeat(starts, sizes)
    table = np.zeros((len(sizes), int(sizes.max(initial=0)) + 1), dtype=np.int32)
    table[tree.pod_of_leaf[order], column + 1] = capacity[order]
    found: Ints = np.cumsum(table, axis=1, dtype=np.int32)
    return found


def _leaves_per_pod(tables: Ints, wanted: int, weights: Weights) -> tuple[Ints, bool]:
    """[pods] From how many leaves of each pod the job takes nodes, and whether nothing is cheaper."""
    fits = np.flatnonzero((tables >= wanted).any(axis=1))
    if len(fits):
        # One pod holds it. No choice of several can be cheaper unless pods are nearly free; then the knapsack decides.
        leaves = (tables[fits] >= wanted).argmax(axis=1)
        least = int(leaves.min())
        if least <= 2 or weights.pod >= weights.leaf * (least - 2):
            return _one_pod(tables, fits[leaves == least], least), True
    greedy = _greedy(tables, wanted)
    pods_max, leaves_max = _bounds(tables, wanted, greedy, weights)
    if len(tables) * tables.shape[1] * (pods_max + 1) * (leaves_max + 1) > _CELLS_MAX:
        return greedy, False
    counts = _knapsack(tables, wanted, pods_max, leaves_max, weights)
    return _best_fit_tail(tables, wanted, counts), True


def _one_pod(tables: Ints, candidates: Ints, leaves: int) -> Ints:
    """The pod with the least free nodes of those that hold the job under so few leaves; for one leaf, any of them."""
    counts = np.zeros(len(tables), dtype=np.int32)
    counts[candidates[np.argmin(tables[candidates, -1])]] = leaves
    return counts


def _greedy(tables: Ints, wanted: int) -> Ints:
    """The largest pods until they suffice, and of these the largest leaves."""
    order = np.argsort(-tables[:, -1], kind="stable")
    needed = int(np.searchsorted(np.cumsum(tables[order, -1]), wanted)) + 1
    chosen = order[:needed]
    gains = np.diff(tables[chosen], axis=1)
    # Within a row gains do not grow (with groups of several nodes nearly so), so a leaf never comes before its betters.
    row, column = np.unravel_index(np.argsort(-gains, axis=None, kind="stable"), gains.shape)
    counts = np.zeros(len(tables), dtype=np.int32)
    held = np.zeros(len(chosen), dtype=np.int64)
    for pod, leaf in zip(row.tolist(), column.tolist(), strict=True):
        if int(held.sum()) >= wanted:
            break
        counts[chosen[pod]] = max(counts[chosen[pod]], leaf + 1)
        held[pod] = tables[chosen[pod], counts[chosen[pod]]]
    return counts


def _bounds(tables: Ints, wanted: int, greedy: Ints, weights: Weights) -> tuple[int, int]:
    """How many pods and how many leaves a cheaper choice than `greedy` can have."""
    pods_least = int(np.count_nonzero(greedy))
    cost = weights.pod * pods_least + weights.leaf * int(greedy.sum())
    single = -np.sort(-np.diff(tables, axis=1), axis=None)
    leaves_least = int(np.searchsorted(np.cumsum(single), wanted)) + 1
    pods_max = min(len(tables), max(pods_least, int((cost - weights.leaf * leaves_least) / weights.pod + 1e-9)))
    leaves_max = max(int(greedy.sum()), int((cost - weights.pod * pods_least) / weights.leaf + 1e-9))
    return pods_max, min(leaves_max, int(np.count_nonzero(np.diff(tables, axis=1))) or leaves_max)


def _knapsack(tables: Ints, wanted: int, pods_max: int, leaves_max: int, weights: Weights) -> Ints:
    """The cheapest choice by dynamic programming over pods: what k pods and m leaves hold at most."""
    useful = _undominated(tables, pods_max)
    width = tables.shape[1] - 1
    # held[pod][k, width + m]; the columns before `width` stand for fewer leaves than none.
    held = np.full((len(useful) + 1, pods_max + 1, width + leaves_max + 1), _NONE, dtype=np.int32)
    held[0, 0, width] = 0
    row, column = held.strides[1:]
    for stage, pod in enumerate(useful.tolist()):
        before, after = held[stage], held[stage + 1]
        # with_pod[m - 1, k, j] is what k pods and j leaves held before this pod gave its m fullest leaves.
        with_pod = np.lib.stride_tricks.as_strided(
            before[:-1, width - 1 :], shape=(width, pods_max, leaves_max + 1), strides=(-column, row, column)
        )
        np.max(with_pod + tables[pod, 1:, None, None], axis=0, out=after[1:, width:])
        np.maximum(after[:, width:], before[:, width:], out=after[:, width:])
    whole = held[-1, :, width:]
    cost = weights.pod * np.arange(pods_max + 1)[:, None] + weights.leaf * np.arange(leaves_max + 1)
    k, m = np.unravel_index(int(np.argmin(np.where(whole >= wanted, cost, np.inf))), whole.shape)
    counts = np.zeros(len(tables), dtype=np.int32)
    for stage in range(len(useful) - 1, -1, -1):
        now, before = held[stage + 1, k, width + m], held[stage]
        if now != before[k, width + m]:
            pod = useful[stage]
            reached = before[k - 1, width + m - np.arange(1, width + 1)] + tables[pod, 1:]
            counts[pod] = leaves = int(np.flatnonzero(reached == now)[0]) + 1
            k, m = k - 1, m - leaves
    return counts


def _undominated(tables: Ints, pods_max: int) -> Ints:
    """Pods that may be needed: those for which not `pods_max` others hold as much under any number of leaves."""
    beats = (tables[:, None, :] >= tables[None, :, :]).all(axis=2)
    same = beats & beats.T
    beats &= ~same | np.tri(len(tables), k=-1, dtype=bool).T  # of equals the first ones count as better
    return np.flatnonzero((beats.sum(axis=0) < pods_max) & (tables[:, -1] > 0)).astype(np.int32)


def _best_fit_tail(tables: Ints, wanted: int, counts: Ints) -> Ints:
    """The same number of pods and leaves, but the last pod is the one that it fits best.

    The knapsack takes the emptiest pods, of which the last is often needed only in part.
    """
    used = np.flatnonzero(counts)
    held = tables[used, counts[used]]
    best = (int(tables[used, -1].sum()), counts)
    for tail, leaves, amount in zip(used.tolist(), counts[used].tolist(), held.tolist(), strict=True):
        rest = wanted - (int(held.sum()) - amount)
        others = np.flatnonzero((counts == 0) & (tables[:, leaves] >= rest))
        if len(others):
            new = int(others[np.argmin(tables[others, -1])])
            total = int(tables[used, -1].sum()) - int(tables[tail, -1]) + int(tables[new, -1])
            if total < best[0]:
                changed = counts.copy()
                changed[tail], changed[new] = 0, leaves
                best = (total, changed)
    return best[1]


# --- which nodes ------------------------------------------------------------------------------------------------------


def _quotas(tables: Ints, counts: Ints, wanted: int) -> Ints:
    """[pods] How many nodes each pod gives: all that its leaves hold, but the one with least to give only the rest."""
    quota = tables[np.arange(len(counts)), counts].astype(np.int32)
    used = np.flatnonzero(counts)
    last = used[np.argmin(quota[used])]
    quota[last] -= int(quota.sum()) - wanted
    assert quota[last] > 0, "a pod less would have sufficed"
    return quota


def _fill(tree: Tree, capacity: Ints, quota: Ints, counts: Ints) -> Ints:
    """[leaves] The nodes of each: from a pod its fullest leaves, and as the last one that which the rest fits best."""
    taken = np.zeros(len(capacity), dtype=np.int32)
    for pod in np.flatnonzero(counts).tolist():
        low, high = np.searchsorted(tree.pod_of_leaf, [pod, pod + 1])
        leaves = low + np.argsort(-capacity[low:high], kind="stable")
        *whole, last = leaves[: counts[pod]].tolist()
        taken[whole] = capacity[whole]
        rest = int(quota[pod]) - int(capacity[whole].sum())
        fitting = [leaf for leaf in leaves[counts[pod] - 1 :].tolist() if capacity[leaf] >= rest]
        taken[fitting[-1] if fitting else last] = rest
    return taken


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
