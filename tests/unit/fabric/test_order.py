"""Orders of ranks: every node once, and no more crossings than nodes along the fabric would have."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster.fabric.crossings import Place, axis_crossings, score, tree_edges
from trainmaster.fabric.mesh import Axis, axes_of, between_nodes, groups_of
from trainmaster.fabric.order import arrange, hostfile, rank_map


def line(*sizes: int) -> list[Place]:
    """Pods of so many nodes, two to a leaf."""
    return [Place(pod, (pod, node // 2)) for pod, size in enumerate(sizes) for node in range(size)]


def test_each_axis_counts_its_own_groups() -> None:
    # Two groups of two neighbours, and two of strides of two.
    assert axis_crossings("aabb", stride=1, size=2, kind="ring") == 0
    assert axis_crossings("aabb", stride=2, size=2, kind="ring") == 2
    assert axis_crossings("aabb", stride=1, size=4, kind="ring") == 2
    assert axis_crossings("aabb", stride=1, size=4, kind="chain") == 1
    assert axis_crossings("aabb", stride=1, size=2, kind="all") == 0


def test_the_busy_axis_runs_along_the_fabric() -> None:
    # Ranks count the pipeline first, so each data group is spread over all of them.
    axes = axes_of({"pp": 2, "dp": 4})
    places = line(4, 4)
    found = arrange(places, axes)
    assert found.along == ("dp", "pp") and found.cost < found.cost_as_given
    ordered = score([places[at] for at in found.order], axes)
    assert ordered.axes["dp"][0] == 0 and ordered.axes["pp"][0] == 4


def test_units_with_whole_groups_come_first() -> None:
    axes = (Axis(name="ep", size=4, kind="all", volume=5.0), Axis(name="dp", size=3))
    found = arrange(line(2, 4, 4, 2), axes)
    assert score([line(2, 4, 4, 2)[at] for at in found.order], axes).axes["ep"][0] < 12, "only one group is torn"
    assert found.order[:4] == (2, 3, 4, 5)


def test_what_lies_in_a_node_needs_no_order() -> None:
    assert between_nodes(axes_of({"tp": 8, "dp": 2}), 8) == axes_of({"dp": 2})
    assert between_nodes(axes_of({"tp": 16, "dp": 2}), 8)[0].size == 2
    with pytest.raises(ValueError, match="tp of 6"):
        between_nodes(axes_of({"tp": 6, "dp": 4}), 8)
    with pytest.raises(ValueError, match="fewer ranks than one node"):
        between_nodes(axes_of({"tp": 2}), 8)


def test_groups_are_kept_where_they_fit_twice() -> None:
    axes = axes_of({"ep": 8, "dp": 16, "pp": 4})
    assert groups_of(axes, leaf=8, pod=64) == (8, 1)


@pytest.mark.parametrize("count", [2, 3, 8, 13, 64])
def test_both_trees_reach_every_node_once(count: int) -> None:
    edges = tree_edges(count)
    half = len(edges) // 2
    for tree in (edges[:half], edges[half:]):
        assert len(tree) == count - 1 and len({child for child, _ in tree}) == count - 1
        above = dict(tree)
        for node in range(count):
            steps = 0
            while node in above:
                node, steps = above[node], steps + 1
                assert steps <= count


shapes = st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=3)
kinds = st.sampled_from(["ring", "chain", "all"])


@given(shapes, st.lists(kinds, min_size=3, max_size=3), st.lists(st.floats(0.1, 9), min_size=3, max_size=3), st.data())
def test_every_node_has_one_rank(sizes: list[int], kind: list[str], volume: list[float], data: st.DataObject) -> None:
    axes = [
        Axis(name=f"a{number}", size=size, kind=kind[number], volume=volume[number])
        for number, size in enumerate(sizes)
        if size > 1
    ]
    count = 1
    for axis in axes:
        count *= axis.size
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=3)))
    places = [Place(sum(at >= cut for cut in cuts), at // 3) for at in range(count)]
    found = arrange(places, axes)
    assert sorted(found.order) == list(range(count))
    assert found.cost <= found.cost_as_given
    scored = score([places[at] for at in found.order], axes)
    cost = sum(axis.volume * (4 * scored.axes[axis.name][0] + scored.axes[axis.name][1]) for axis in axes)
    assert cost == pytest.approx(found.cost), "the score of the order is what it was chosen for"


def test_files_for_other_launchers() -> None:
    assert hostfile(["n3", "n1"], tasks_per_node=2) == "n3\nn3\nn1\nn1\n"
    assert dict(row.split() for row in rank_map(["n3", "n1"]).splitlines()) == {"n3": "0", "n1": "1"}
