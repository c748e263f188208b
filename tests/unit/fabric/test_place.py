"""Placement: the cheapest set of nodes, whatever is free."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainmaster.fabric.allot import Weights, allot, weights_for
from trainmaster.fabric.place import cost_of, place
from trainmaster.fabric.tree import Tree
from trainmaster.fabric.tree import arrange as tree_of


def fabric(sizes: list[list[int]], *, ratio: float = 7.0, islands: list[int] | None = None) -> Tree:
    """A tree from the number of nodes of each leaf of each pod."""
    leaf_of, pod_of_leaf = [], []
    for pod, leaves in enumerate(sizes):
        for count in leaves:
            leaf_of += [len(pod_of_leaf)] * count
            pod_of_leaf.append(pod)
    return tree_of(
        nodes=[f"n{number:04}" for number in range(len(leaf_of))],
        leaf_of=leaf_of,
        pod_of_leaf=pod_of_leaf,
        island_of_pod=islands or [0] * len(sizes),
        leaves=[f"leaf{number}" for number in range(len(pod_of_leaf))],
        pods=[f"pod{number}" for number in range(len(sizes))],
        pod_oversubscription=ratio,
    )


def all_free(tree: Tree) -> np.ndarray:
    return np.ones(len(tree.nodes), dtype=bool)


def test_the_tightest_leaf_that_holds_the_job() -> None:
    tree = fabric([[8, 5], [4, 8]])
    found = place(tree, all_free(tree), 4)
    assert found is not None and set(tree.leaf_of[found.nodes]) == {2}


def test_one_pod_before_fewer_leaves_where_pods_are_joined_by_less() -> None:
    sizes = [[8], [8], [6, 6, 4]]
    assert found_units(fabric(sizes), 16) == (1, 3)
    assert found_units(fabric(sizes, ratio=1.0), 16) == (1, 3)
    assert found_units(fabric(sizes), 15) == (1, 3)


def found_units(tree: Tree, wanted: int) -> tuple[int, int]:
    found = place(tree, all_free(tree), wanted)
    assert found is not None and len(found.nodes) == wanted
    return found.pods, found.leaves


def test_the_case_that_slurm_spreads_over_seven_pods() -> None:
    free = [1, 1, 3, 3, 2, 2, 3, 2, 3, 2, 2, 2, 2, 2, 2, 2]
    tree = fabric([[3, 3]] * 8)
    taken = allot(tree, np.array(free, dtype=np.int32), 20, weights_for(tree))
    assert taken is not None
    counts, exact = taken
    pods = {int(tree.pod_of_leaf[leaf]) for leaf in np.flatnonzero(counts)}
    assert exact and int(counts.sum()) == 20 and len(pods) == 4 and np.count_nonzero(counts) == 8


def test_the_last_pod_is_the_one_that_fits_best() -> None:
    tree = fabric([[8, 8], [8, 8], [8, 1]])
    free = all_free(tree)
    found = place(tree, free, 18)
    assert found is not None and found.pods == 2
    assert set(tree.pod_of[found.nodes]) & {2}, "the small hole is used, a whole pod stays free"


def test_degraded_nodes_come_last() -> None:
    tree = fabric([[4, 4]])
    tree.score[1] = 0.5
    found = place(tree, all_free(tree), 3)
    assert found is not None and 1 not in found.nodes and found.leaves == 1
    whole = place(tree, all_free(tree), 8)
    assert whole is not None and whole.degraded == 1 and "n0001" in " ".join(whole.why)


def test_another_pod_for_the_sake_of_one_slightly_degraded_node_is_too_much() -> None:
    tree = fabric([[4], [1]])
    tree.score[0] = 0.875
    found = place(tree, all_free(tree), 4)
    assert found is not None and found.pods == 1 and found.degraded == 1


def test_spares_hang_under_other_leaves() -> None:
    tree = fabric([[4, 4], [4, 4]])
    found = place(tree, all_free(tree), 4, spares=2)
    assert found is not None
    assert not set(tree.leaf_of[found.spares]) & set(tree.leaf_of[found.nodes])
    assert set(tree.pod_of[found.spares]) == set(tree.pod_of[found.nodes])


def test_groups_of_a_mesh_stay_whole_where_they_can() -> None:
    tree = fabric([[6], [6], [6]])
    found = place(tree, all_free(tree), 12, groups=(4, 4))
    assert found is not None
    per_pod = np.bincount(tree.pod_of[found.nodes])
    assert not (per_pod % 4).any()
    torn = place(tree, all_free(tree), 16, groups=(4, 4))
    assert torn is not None and len(torn.nodes) == 16 and "every group" in " ".join(torn.why)


def test_too_few_are_nothing() -> None:
    tree = fabric([[2]])
    assert place(tree, all_free(tree), 3) is None
    assert place(tree, all_free(tree), 2, spares=1) is None
    assert place(tree, ~all_free(tree), 1) is None


def test_a_job_never_spans_two_islands() -> None:
    tree = fabric([[4], [3]], islands=[0, 1])
    assert place(tree, all_free(tree), 5) is None
    found = place(tree, all_free(tree), 3)
    assert found is not None and set(tree.pod_of[found.nodes]) == {1}


counts = st.lists(st.lists(st.integers(0, 4), min_size=2, max_size=3), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(counts, st.integers(1, 20), st.sampled_from([1.0, 3.0, 7.0]), st.sampled_from([0.2, 1.0, 30.0]))
def test_nothing_is_cheaper(sizes: list[list[int]], wanted: int, ratio: float, pod: float) -> None:
    filled = [[max(1, count) for count in leaves] for leaves in sizes]
    tree = fabric(filled, ratio=ratio)
    free = np.array([count for leaves in sizes for count in leaves], dtype=np.int32)
    weights = Weights(pod=pod)
    found = allot(tree, free, wanted, weights)
    if int(free.sum()) < wanted:
        assert found is None
        return
    assert found is not None
    taken, exact = found
    assert int(taken.sum()) == wanted and (taken <= free).all() and (taken >= 0).all() and exact
    numbers = range(len(free))
    possible = [
        (len({int(tree.pod_of_leaf[leaf]) for leaf in chosen}), len(chosen))
        for size in range(1, len(free) + 1)
        for chosen in combinations(numbers, size)
        if int(free[list(chosen)].sum()) >= wanted
    ]
    best = min(pod * pods + leaves for pods, leaves in possible)
    used = np.flatnonzero(taken)
    own_pods = len(set(tree.pod_of_leaf[used].tolist()))
    assert pod * own_pods + len(used) == pytest.approx(best)
    fewest = min(pods for pods, leaves in possible if pod * pods + leaves == pytest.approx(best))
    assert own_pods == fewest, "of equals the one of fewest pods"


def test_a_job_that_fills_a_large_cluster_is_placed_too() -> None:
    tree = fabric([[32] * 12] * 33)
    free = np.random.default_rng(3).random(len(tree.nodes)) < 0.9
    wanted = int(free.sum()) - 5
    found = place(tree, free, wanted)
    assert found is not None and len(set(found.nodes.tolist())) == wanted and free[found.nodes].all()
    assert found.cost == pytest.approx(cost_of(tree, found.nodes))
