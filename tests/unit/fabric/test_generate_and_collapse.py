"""Generated fabrics collapse to the units and pods that they were generated from, whatever is broken in them."""

from dataclasses import replace

import numpy as np
import pytest

from trainmaster.errors import UsageError
from trainmaster.fabric.generate import generate, parse_shape
from trainmaster.fabric.merge import collapse
from trainmaster.fabric.model import Fabric, Links


def without_links(fabric: Fabric, gone: np.ndarray) -> Fabric:
    """The fabric with these links cut."""
    keep = np.ones(len(fabric.links), dtype=bool)
    keep[gone] = False
    links = fabric.links
    return replace(
        fabric,
        links=Links.of(
            links.a[keep], links.a_port[keep], links.b[keep], links.b_port[keep], lane_gbps=links.lane_gbps[keep]
        ),
    )


def swapped(fabric: Fabric, one: int, other: int) -> Fabric:
    """The fabric with two cables' lower ends exchanged."""
    a = fabric.links.a.copy()
    a[[one, other]] = a[[other, one]]
    return replace(fabric, links=replace(fabric.links, a=a))


@pytest.mark.parametrize(
    ("text", "nodes", "leaves", "pods", "over"),
    [
        ("fat:4x8", 32, 4, 1, (1.0, 1.0)),
        ("fat:8x32,over=4", 256, 8, 1, (4.0, 1.0)),
        ("rail:4x32", 128, 4, 1, (1.0, 1.0)),
        ("rail:64x32", 2048, 64, 1, (1.0, 1.0)),
        ("rail:2x2,rails=2", 4, 2, 1, (1.0, 1.0)),
        ("pods:4x8x32", 1024, 32, 4, (1.0, 1.0)),
        ("pods:3x4x16,over=7", 192, 12, 3, (1.0, 7.0)),
        ("planes:2x4x32", 128, 4, 1, (1.0, 1.0)),
        ("planes:4x3x8", 24, 3, 1, (1.0, 1.0)),
    ],
)
def test_every_design_collapses_to_its_units_and_pods(text, nodes, leaves, pods, over):
    shape = parse_shape(text)
    fabric = generate(shape)
    tree = collapse(fabric)
    assert (len(tree.nodes), len(tree.leaves), len(tree.pods)) == (nodes, leaves, pods)
    assert tree.leaf_sizes.tolist() == [shape.nodes] * leaves
    assert tree.pod_sizes.tolist() == [shape.units * shape.nodes] * pods
    assert (tree.leaf_oversubscription, tree.pod_oversubscription) == pytest.approx(over, rel=0.05)
    assert tree.island_of_pod.tolist() == [0] * pods
    assert (tree.score == 1.0).all()
    assert len({*tree.leaves, *tree.pods}) == leaves + pods
    ports = np.bincount(np.r_[fabric.links.a, fabric.links.b], minlength=len(fabric.switches))
    assert all(ports[number] <= switch.ports for number, switch in enumerate(fabric.switches))


@pytest.mark.parametrize("seed", range(20))
def test_dead_adapters_and_wrong_cables_split_no_unit(seed):
    rng = np.random.default_rng(seed)
    fabric = generate(parse_shape("pods:2x3x8,rails=4"))
    adapters = 2 * 3 * 8 * 4
    whole = collapse(fabric)
    for _ in range(3):
        fabric = swapped(fabric, *rng.choice(adapters, size=2, replace=False))
    fabric = without_links(fabric, rng.choice(adapters, size=6, replace=False))
    tree = collapse(fabric)
    assert tree.leaves == whole.leaves
    assert tree.pods == whole.pods
    # Of twelve broken cables two or three may be one node's.
    same = [tree.leaf_of[tree.index[name]] == whole.leaf_of[whole.index[name]] for name in tree.nodes]
    assert sum(same) >= len(same) - 1


def test_a_dead_adapter_leaves_its_node_where_it_was_with_a_lower_score():
    fabric = without_links(generate(parse_shape("rail:4x32")), np.array([5 * 8 + 3]))
    tree = collapse(fabric)
    assert tree.leaf_sizes.tolist() == [32] * 4
    assert tree.score[tree.index["n006"]] == 0.875
    assert (np.delete(tree.score, tree.index["n006"]) == 1.0).all()


def test_a_cable_between_pods_does_not_join_them():
    fabric = generate(parse_shape("pods:2x4x8,rails=2"))
    top = max(
        number
        for number, name in enumerate(switch.name for switch in fabric.switches)
        if name.startswith(("su001-", "su005-"))
    )
    first = int(np.flatnonzero(fabric.links.a == 0)[0])
    second = int(np.flatnonzero(fabric.links.a == top)[0])
    assert len(collapse(swapped(fabric, first, second)).pods) == 2


def test_two_parts_that_nothing_joins_are_two_islands():
    one, two = (generate(parse_shape("fat:2x4"), names=[f"{prefix}{n}" for n in range(8)]) for prefix in "ab")
    switches = len(one.switches)

    def moved(ends: np.ndarray, mine: int) -> np.ndarray:
        return np.where(ends < switches, ends + mine * switches, ends + switches + mine * len(one.hcas))

    joined = replace(
        one,
        switches=(*one.switches, *two.switches),
        hcas=(*one.hcas, *two.hcas),
        links=Links.of(
            np.r_[moved(one.links.a, 0), moved(two.links.a, 1)],
            np.r_[one.links.a_port, two.links.a_port],
            np.r_[moved(one.links.b, 0), moved(two.links.b, 1)],
            np.r_[one.links.b_port, two.links.b_port],
        ),
    )
    tree = collapse(joined)
    assert tree.island_of_pod.tolist() == [0, 1]
    assert [unit.name for unit in tree.units()] == list(tree.pods)


def test_the_order_is_depth_first_and_natural():
    names = [f"b{number}" for number in range(20, 12, -1)] + [f"a{number}" for number in range(8)]
    tree = collapse(generate(parse_shape("fat:4x4"), names=names))
    assert tree.nodes == (*(f"a{n}" for n in range(8)), *(f"b{n}" for n in range(13, 21)))
    assert tree.leaf_of.tolist() == sorted(tree.leaf_of.tolist())


def test_names_stay_when_a_unit_is_added_in_front():
    before = collapse(generate(parse_shape("rail:2x4,rails=2"), names=[f"n{number}" for number in range(10, 18)]))
    grown = generate(parse_shape("rail:3x4,rails=2"), names=[f"n{number}" for number in (*range(4), *range(10, 18))])
    after = collapse(grown, like=before)
    assert after.leaves[1:] == before.leaves
    assert after.leaves[0] not in before.leaves
    assert after.pods == before.pods


@pytest.mark.parametrize(
    "text",
    ["", "rail", "rail:4", "rail:0x4", "tree:2x2", "rail:4x4,colour=2", "rail:axb", "planes:9x2x2", "rail:4x4,over"],
)
def test_shapes_that_mean_nothing_are_refused(text):
    with pytest.raises(UsageError):
        parse_shape(text)


def test_of_two_rails_the_one_on_its_own_rails_switch_decides():
    # n1's mlx5_0 and n4's mlx5_1 have changed places: each node has one cable in each unit.
    fabric = swapped(generate(parse_shape("rail:2x3,rails=2")), 2, 9)
    assert collapse(fabric).leaf_sizes.tolist() == [3, 3]
