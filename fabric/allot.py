"""How many nodes each leaf gives to a job so that pods and leaves cost least. Pure; numpy.

Within a pod the best leaves are always those with most free nodes, so a pod is a short table "so many leaves hold so
many nodes", and a knapsack over these tables says how many nodes k pods and m leaves can hold at most. Of the many
allotments that cost the same one of fewest pods is taken, and of these one that leaves large holes for others: best
fit, from pods to leaves.
"""

from dataclasses import dataclass

import numpy as np

from trainmaster.fabric.model import Ints
from trainmaster.fabric.tree import Tree

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
    # The first of equals: the fewest pods.
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
