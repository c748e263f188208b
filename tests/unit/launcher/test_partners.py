"""Who keeps whose copies, and what can be gone on from after any losses."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from trainmaster.launcher.supervise.partners import missing, newest_whole, pair
from trainmaster.launcher.supervise.placement import switch_path

clusters = st.lists(st.integers(1, 5), min_size=1, max_size=5).map(
    lambda leaves: {
        f"n{leaf}x{number}": f"spine.leaf{leaf}.n{leaf}x{number}"
        for leaf, size in enumerate(leaves)
        for number in range(size)
    }
)


def leaf(addresses: dict[str, str], node: str) -> tuple[str, ...]:
    return switch_path(addresses[node], node)


@given(clusters)
def test_each_node_keeps_one_other_nodes_copies_under_another_leaf_where_that_is_possible(
    addresses: dict[str, str],
) -> None:
    pairs = pair(addresses)
    if len(addresses) == 1:
        assert pairs == {}
        return
    assert set(pairs) == set(pairs.values()) == set(addresses)
    assert all(owner != keeper for owner, keeper in pairs.items())
    largest = max(sum(leaf(addresses, other) == leaf(addresses, node) for other in addresses) for node in addresses)
    if 2 * largest <= len(addresses):
        assert all(leaf(addresses, owner) != leaf(addresses, keeper) for owner, keeper in pairs.items())


@given(clusters, clusters, st.data())
def test_pairs_of_nodes_that_stay_stay(addresses: dict[str, str], spares: dict[str, str], data: st.DataObject) -> None:
    before = pair(addresses)
    gone = data.draw(st.sets(st.sampled_from(sorted(addresses)), max_size=2))
    fresh = {f"s{node}": f"{address[: -len(node)]}s{node}" for node, address in spares.items()}
    now = {node: address for node, address in addresses.items() if node not in gone}
    now |= dict(list(fresh.items())[: len(gone)])
    pairs = pair(now, before=before)
    if len(now) < 2:
        assert pairs == {}
        return
    assert set(pairs) == set(pairs.values()) == set(now)
    assert all(owner != keeper for owner, keeper in pairs.items())
    changed = [node for node, keeper in before.items() if node in now and keeper in now and pairs[node] != keeper]
    assert len(changed) <= 2 * len(gone)


@given(clusters, st.data())
def test_any_losses_leave_the_step_unless_a_node_goes_with_its_keeper(
    addresses: dict[str, str], data: st.DataObject
) -> None:
    """Rank = node: two whole rounds on every node and its keeper, of a third only what some nodes came to copy."""
    nodes = sorted(addresses)
    pairs = pair(addresses)
    begun = data.draw(st.sets(st.sampled_from(nodes), max_size=len(nodes) - 1))
    rounds = {(0, 50): set(nodes), (0, 100): set(nodes), (0, 150): begun}
    have: dict[str, dict[tuple[int, int], set[int]]] = {node: {} for node in nodes}
    for one, owners in rounds.items():
        for owner in owners:
            for home in {owner, pairs.get(owner, owner)}:
                have[home].setdefault(one, set()).add(nodes.index(owner))
    lost = data.draw(st.sets(st.sampled_from(nodes)))
    left = {node: rounds for node, rounds in have.items() if node not in lost}
    expected = None if any(node in lost and pairs.get(node, node) in lost for node in nodes) else (0, 100)
    assert newest_whole(left, len(nodes)) == expected
    if expected:
        spares = [f"spare{number}" for number in range(len(lost))]
        homes = dict(zip(sorted(lost), spares, strict=True))
        ranks = {homes.get(node, node): [nodes.index(node)] for node in nodes}
        fetches = missing(left, expected, ranks)
        assert set(fetches) == set(spares)
        for place, wanted in fetches.items():
            for rank, source in wanted:
                assert ranks[place] == [rank]
                assert source in left and rank in left[source][expected]


def test_every_pair_of_losses_by_hand() -> None:
    addresses = {"n1": "a.n1", "n2": "a.n2", "n3": "b.n3", "n4": "b.n4"}
    pairs = pair(addresses)
    have = {node: {(0, 5): {index}} for index, node in enumerate(addresses)}
    for index, node in enumerate(addresses):
        have[pairs[node]][(0, 5)] |= {index}
    fatal = []
    for lost in combinations(addresses, 2):
        if newest_whole({node: rounds for node, rounds in have.items() if node not in lost}, 4) is None:
            fatal.append(lost)
    assert fatal == [("n1", "n3"), ("n2", "n4")]


def test_a_later_cycle_is_newer_than_a_later_step_of_the_one_before() -> None:
    assert newest_whole({"n1": {(0, 500): [0], (1, 60): [0]}}, 1) == (1, 60)


def test_2000_nodes_are_paired_in_a_moment() -> None:
    addresses = {f"n{number}": f"spine.leaf{number // 20}.n{number}" for number in range(2000)}
    pairs = pair(addresses)
    assert all(leaf(addresses, owner) != leaf(addresses, keeper) for owner, keeper in pairs.items())
