"""Which pods a job is kept to."""

from trainmaster.fabric.steer import Course, flat, scored, steer
from trainmaster.fabric.tree import Tree
from trainmaster.fabric.tree import arrange as tree_of

ALL = {f"n{number}" for number in range(12)}


def three_pods() -> Tree:
    """Pods of 6, 4 and 2 nodes, a leaf each."""
    return tree_of(
        nodes=sorted(ALL, key=lambda name: int(name[1:])),
        leaf_of=[0] * 6 + [1] * 4 + [2] * 2,
        pod_of_leaf=[0, 1, 2],
        island_of_pod=[0, 0, 0],
        leaves=["l0", "l1", "l2"],
        pods=["p0", "p1", "p2"],
    )


def course(idle: set[str], wanted: int, **more: int) -> Course | None:
    return steer(three_pods(), idle=idle, usable=ALL, wanted=wanted, **more)


def test_the_pod_that_fits_best_and_all_others_left_out() -> None:
    found = course(ALL, 3)
    assert found is not None and found.pods == ("p1",) and found.now
    assert found.exclude == ("n0", "n1", "n2", "n3", "n4", "n5", "n10", "n11")


def test_busy_nodes_count_as_busy() -> None:
    found = course(ALL - {"n6", "n7"}, 3)
    assert found is not None and found.pods == ("p0",)


def test_a_job_that_needs_every_pod_is_not_steered() -> None:
    assert course(ALL, 12) is None


def test_what_cannot_start_now_is_left_to_slurm_unless_pods_are_limited() -> None:
    assert course({"n0", "n6"}, 4) is None
    found = course({"n0", "n6"}, 4, pods_max=1)
    assert found is not None and found.pods == ("p1",) and not found.now
    assert course(ALL, 7, pods_max=1) is None


def test_spares_count_among_the_pods() -> None:
    found = course(ALL, 4, spares=1)
    assert found is not None and found.pods == ("p1", "p2"), "the pod that is full of it, and a small hole"
    assert course(ALL, 6, spares=1, pods_max=1) is None


BAD = {"n6": 0.875, "n8": 0.0}


def test_a_bad_node_of_the_pod_is_left_out_too_when_the_job_does_not_need_it() -> None:
    found = steer(scored(three_pods(), {"n6": 0.875}), idle=ALL, usable=ALL, wanted=3)
    assert found is not None and found.pods == ("p1",) and found.avoided == ("n6",)
    assert found.exclude == ("n0", "n1", "n2", "n3", "n4", "n5", "n6", "n10", "n11")


def test_a_pod_with_too_few_sound_nodes_is_not_chosen_while_another_has_enough() -> None:
    found = steer(scored(three_pods(), BAD), idle=ALL, usable=ALL, wanted=3)
    assert found is not None and found.pods == ("p0",) and found.avoided == ()


def test_bad_nodes_that_a_job_needs_are_not_left_out() -> None:
    assert steer(scored(three_pods(), BAD), idle=ALL, usable=ALL, wanted=12) is None
    found = steer(scored(three_pods(), BAD), idle=ALL, usable=ALL, wanted=11)
    assert found is not None and found.pods == () and found.exclude == found.avoided == ("n8",), "the better one stays"


def test_a_job_that_waits_avoids_bad_nodes_as_long_as_there_are_others() -> None:
    found = steer(scored(three_pods(), BAD), idle={"n0"}, usable=ALL, wanted=10)
    assert found is not None and not found.now and found.exclude == ("n6", "n8")
    assert steer(scored(three_pods(), BAD), idle={"n0"}, usable=ALL - {"n1"}, wanted=10) is None
    assert steer(three_pods(), idle={"n0"}, usable=ALL, wanted=10) is None


def test_without_a_topology_bad_nodes_are_avoided_all_the_same() -> None:
    tree = scored(flat(sorted(ALL)), BAD)
    found = steer(tree, idle=ALL, usable=ALL, wanted=10)
    assert found is not None and found.pods == () and set(found.exclude) == set(BAD)
