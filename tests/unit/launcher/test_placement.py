"""Node order and the choice of spares."""

from hypothesis import given
from hypothesis import strategies as st

from trainmaster.fabric.mesh import axes_of
from trainmaster.launcher.supervise.placement import (
    first_free,
    in_fabric_order,
    keep_places,
    lay_out,
    score_of,
    switch_path,
)

TWO_LEAVES = {f"n{i:02}": f"spine.leaf{i % 2}.n{i:02}" for i in range(1, 9)}


def test_neighbours_share_a_leaf_whatever_their_names_say() -> None:
    assert in_fabric_order(TWO_LEAVES) == ("n02", "n04", "n06", "n08", "n01", "n03", "n05", "n07")


def test_no_topology_means_natural_order() -> None:
    assert in_fabric_order({"n10": "n10", "n9": "n9"}) == ("n9", "n10")


def test_a_dotted_node_name_is_no_switch() -> None:
    assert switch_path("spine.leaf1.gpu7.example.org", "gpu7.example.org") == ("spine", "leaf1")


def test_spares_are_the_nodes_that_fit_worst() -> None:
    addresses = {"a1": "s.l1.a1", "a2": "s.l1.a2", "a3": "s.l1.a3", "b1": "s.l2.b1"}
    layout = lay_out(addresses, 3)
    assert layout is not None and layout.nodes == ("a1", "a2", "a3") and layout.spares == ("b1",)


def test_a_node_with_bad_links_waits_as_a_spare_though_it_lies_well() -> None:
    addresses = {"a1": "s.l1.a1", "a2": "s.l1.a2", "a3": "s.l1.a3", "b1": "s.l2.b1"}
    layout = lay_out(addresses, 3, links={"a2": 0.5})
    assert layout is not None and layout.nodes == ("a1", "a3", "b1") and layout.spares == ("a2",)
    # Where all are needed it is better than nothing, and the worse of two waits.
    layout = lay_out(addresses, 3, links={"a2": 0.5, "b1": 0.9})
    assert layout is not None and layout.spares == ("a2",)
    layout = lay_out(addresses, 4, links={"a2": 0.0})
    assert layout is not None and set(layout.nodes) == set(addresses)


def test_who_ran_stays_though_its_links_are_bad() -> None:
    addresses = {"a1": "s.l1.a1", "a2": "s.l1.a2", "a3": "s.l1.a3"}
    assert keep_places(addresses, 2, before=("a2", "a1"), links={"a2": 0.1}) == ("a2", "a1")


def test_a_dead_node_is_replaced_under_its_own_leaf() -> None:
    left = {node: address for node, address in TWO_LEAVES.items() if node != "n02"}
    layout = lay_out(left, 4, running=("n02", "n04", "n06", "n01"))
    assert layout is not None and set(layout.nodes) == {"n04", "n06", "n01", "n08"}


def test_too_few() -> None:
    assert lay_out({"n1": "n1"}, 2) is None


names = st.integers(0, 40).map(lambda number: f"n{number}")
clusters = st.dictionaries(names, st.integers(0, 4), min_size=1, max_size=24).map(
    lambda found: {node: f"spine.leaf{leaf}.{node}" for node, leaf in found.items()}
)


@given(clusters, st.integers(1, 24), st.sets(names))
def test_laws(addresses: dict[str, str], wanted: int, running: set[str]) -> None:
    layout = lay_out(addresses, wanted, running=running)
    if wanted > len(addresses):
        assert layout is None
        return
    assert layout is not None
    assert len(layout.nodes) == wanted
    assert sorted([*layout.nodes, *layout.spares]) == sorted(addresses)
    alive = running & set(addresses)
    assert len(alive & set(layout.nodes)) == min(len(alive), wanted), "nodes that ran stay"
    order = in_fabric_order(addresses)
    assert list(layout.nodes) == [node for node in order if node in layout.nodes]
    leaves = [addresses[node].split(".")[1] for node in order]
    assert len({*leaves}) == sum(1 for i, leaf in enumerate(leaves) if i == 0 or leaves[i - 1] != leaf)


@given(st.sets(st.sampled_from(sorted(TWO_LEAVES)), min_size=1), st.permutations(sorted(TWO_LEAVES)[:4]))
def test_who_stays_keeps_its_index(healthy: set[str], before: list[str]) -> None:
    addresses = {node: TWO_LEAVES[node] for node in healthy}
    places = keep_places(addresses, 4, before=tuple(before))
    assert (places is None) == (len(healthy) < 4)
    if places is not None:
        assert len(set(places)) == 4 and set(places) <= healthy
        assert all(now == then for now, then in zip(places, before, strict=True) if then in healthy)


def test_a_replica_of_its_own_stays_or_takes_the_first_free_place() -> None:
    free = {"a/n2/0": "a/n2/0", "a/n10/0": "a/n10/0"}
    assert first_free(free, before=("a/n10/0",)) == ("a/n10/0",)
    assert first_free(free, before=("a/n3/0",)) == ("a/n2/0",)
    assert first_free({}, before=()) is None


def test_a_replica_that_moves_takes_the_place_with_the_best_links() -> None:
    free = {place: place for place in ("a/n2/0", "a/n3/0", "a/n4/0")}
    assert first_free(free, before=("a/n1/0",), links={"a/n2/0": 0.5}) == ("a/n3/0",)
    assert first_free(free, before=("a/n1/0",), links=dict.fromkeys(free, 0.5) | {"a/n4/0": 0.9}) == ("a/n4/0",)
    assert first_free(free, before=("a/n2/0",), links={"a/n2/0": 0.1}) == ("a/n2/0",), "where it was its data is warm"


def test_the_spare_comes_from_the_pod_with_fewest_nodes() -> None:
    # One leaf each: without a look at pods, any of the single nodes could be the spare.
    addresses = {f"a{i}": f"s.p1.la{i}.a{i}" for i in range(3)} | {f"b{i}": f"s.p2.lb{i}.b{i}" for i in range(2)}
    layout = lay_out(addresses, 4)
    assert layout is not None and layout.spares == ("b1",)


def test_a_thousand_nodes_under_a_few_leaves() -> None:
    # This took a look at all nodes for every pair of them.
    addresses = {f"n{i:04}": f"s.p{i % 7}.l{i % 61}.n{i:04}" for i in range(1500)}
    layout = lay_out(addresses, 1490)
    assert layout is not None and len(layout.nodes) == 1490 and len(layout.spares) == 10


def test_ranks_follow_the_mesh() -> None:
    addresses = {f"n{i}": f"s.p{i // 4}.l{i // 2}.n{i}" for i in range(8)}
    axes = axes_of({"pp": 2, "dp": 4})
    layout = lay_out(addresses, 8, axes=axes)
    assert layout is not None and layout.nodes[::2] == ("n0", "n1", "n2", "n3")
    scored = score_of(addresses, layout.nodes, axes)
    assert scored is not None and scored.pods == 2 and scored.axes["dp"][0] == 0
    assert score_of({"n1": "n1"}, ("n1",)) is None, "there are no switches to speak of"
    kept = keep_places({node: addresses[node] for node in layout.nodes}, 8, before=layout.nodes[::-1], axes=axes)
    assert kept == layout.nodes[::-1], "who holds copies keeps its ranks"
