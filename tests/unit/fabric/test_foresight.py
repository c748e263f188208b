"""Planning ahead: what waiting jobs and those to come are told, on values alone."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import pytest

from trainmaster.errors import FabricError, SlurmError
from trainmaster.fabric import foresight, lookup
from trainmaster.fabric.foresight import Busy, Part, Waiting, foresee, labels, sizes_to_plan
from trainmaster.fabric.planner import one_pass, plan
from trainmaster.fabric.topology_conf import read_config, tree_of
from trainmaster.fabric.tree import Tree
from trainmaster.slurm.values import Job, Node


def fabric(pods: int = 3, leaves: int = 2, nodes: int = 2) -> Tree:
    """Pods a, b, c of two leaves of two nodes: n01 to n04, n05 to n08, n09 to n12."""
    lines, number = [], 1
    for pod in "abcdefgh"[:pods]:
        for leaf in range(leaves):
            lines.append(f"SwitchName={pod}{leaf} Nodes=n[{number:02}-{number + nodes - 1:02}]")
            number += nodes
        lines.append(f"SwitchName={pod} Switches={pod}[0-{leaves - 1}]")
    lines.append(f"SwitchName=top Switches={','.join('abcdefgh'[:pods])}")
    return tree_of(read_config("\n".join(lines)))


TREE = fabric()


def names(*numbers: int) -> frozenset[str]:
    return frozenset(f"n{number:02}" for number in numbers)


def part(free: Sequence[int] = range(1, 13), nodes: Sequence[int] = range(1, 13), name: str = "batch") -> Part:
    return Part(name=name, nodes=names(*nodes), free=names(*free))


def waiting(job_id: int, nodes: int, *, partition: str = "batch", left_out: frozenset[str] = frozenset()) -> Waiting:
    return Waiting(job_id=job_id, partition=partition, nodes=nodes, left_out=left_out)


def test_waiting_jobs_share_the_free_nodes_in_their_order():
    seen = foresee(TREE, [part()], [waiting(1, 4), waiting(2, 4), waiting(3, 3)], [])
    assert sorted(place.pods for place in seen.places) == [(0,), (1,), (2,)]
    assert all(place.now for place in seen.places)
    assert sum(seen.tables[0].free) == 1


def test_a_job_that_does_not_fit_yet_gets_what_ends_next():
    busy = [Busy(nodes=names(5, 6, 7, 8), end_time=900.0), Busy(nodes=names(1, 2, 3, 4), end_time=300.0)]
    seen = foresee(TREE, [part(free=(9,))], [waiting(7, 4)], busy)
    assert [(place.pods, place.now) for place in seen.places] == [((0,), False)]
    # What is free meanwhile is not promised away.
    assert seen.tables[0].free == (0, 0, 1)


def test_a_job_that_would_get_every_pod_is_told_nothing_and_still_has_its_nodes():
    seen = foresee(TREE, [part()], [waiting(1, 11)], [])
    assert seen.places[0].pods == () and sum(seen.tables[0].free) == 1


def test_excluded_nodes_are_not_counted_on():
    seen = foresee(TREE, [part()], [waiting(1, 4, left_out=names(1, 5))], [])
    assert seen.places[0].pods == (2,)


def test_partitions_on_the_same_nodes_do_not_promise_them_twice():
    seen = foresee(TREE, [part(), part(name="high")], [waiting(1, 8, partition="high")], [])
    assert [sum(table.free) for table in seen.tables] == [4, 4]


def test_a_partition_in_one_pod_needs_no_plan():
    seen = foresee(TREE, [part(nodes=range(1, 5), free=range(1, 5))], [waiting(1, 2)], [])
    assert seen.tables == () and seen.places == ()


def test_every_set_of_the_table_holds_its_size_and_a_smaller_set_does_not_do():
    free = part(free=(1, 5, 6, 9, 10, 11))
    table = foresee(TREE, [free], [], []).tables[0]
    assert table.free == (1, 2, 3)
    sizes = dict(table.sizes)
    assert sizes[2] == ((1,), (2,), (0, 2)) and sizes[3][0] == (2,) and sizes[5] == ((1, 2),)
    for size, sets in sizes.items():
        for pods in sets:
            assert sum(table.free[pod] for pod in pods) >= size
    # All six need all pods, which is what Slurm would do without a word.
    assert 6 not in sizes


def test_sizes_are_dense_where_jobs_are_small_and_an_eighth_apart_where_they_are_large():
    sizes = sizes_to_plan(12_672)
    assert {2, 3, 8, 9, 16, 32, 48, 64, 72, 128, 144, 512, 1024, 2048} <= set(sizes)
    assert all(later <= max(earlier + 1, earlier * 1.13) for earlier, later in pairwise(sizes))
    assert len(sizes) < 120


def test_a_label_is_one_only_when_it_stands_for_exactly_its_pod():
    whole = {node: frozenset({f"tm-{TREE.pods[int(TREE.pod_of[TREE.index[node]])]}", "gpu"}) for node in TREE.nodes}
    assert labels(TREE, whole) == ("tm-a", "tm-b", "tm-c")
    assert labels(TREE, whole | {"n01": frozenset({"gpu"})}) == ("", "tm-b", "tm-c")
    assert labels(TREE, whole | {"n01": frozenset({"tm-a", "tm-b"})}) == ("tm-a", "", "tm-c")
    assert labels(TREE, whole | {"login": frozenset({"tm-c"})}) == ("tm-a", "tm-b", "")


def test_sets_that_slurm_cannot_be_told_of_are_not_in_the_file():
    seen = foresee(TREE, [part()], [], [])
    text = lookup.text(seen, ("tm-a", "", "tm-c"), made=1.0, expires=2.0)
    for line in text.splitlines():
        if line.startswith("size"):
            assert "2" not in line.split()[2].replace(",", ";").split(";")
    assert "pod -" in text
    long = tuple(f"tm-{'x' * 600}{pod}" for pod in "abc")
    assert lookup.preference((0, 1), long) == "" and lookup.preference((0,), long) == long[0]


# --- a whole pass -----------------------------------------------------------------------------------------------------


def node(number: int, **values: object) -> Node:
    pod = "abc"[(number - 1) // 4]
    fields: dict[str, object] = {
        "name": f"n{number:02}",
        "state": "IDLE",
        "features": ("gpu", f"tm-{pod}"),
        "partitions": ("batch",),
        "gres": "gpu:8",
        "cpus": 64,
        "memory_mib": 1000,
    }
    return Node(**{**fields, **values})  # type: ignore[arg-type]


NODES = [node(number) for number in range(1, 13)]


def job(job_id: int, count: int, **values: object) -> Job:
    fields: dict[str, object] = {
        "job_id": job_id,
        "state": "PENDING",
        "reason": "Resources",
        "partition": "batch",
        "node_count": count,
        "priority": 100 - job_id,
    }
    return Job(**{**fields, **values})  # type: ignore[arg-type]


def told(jobs: Sequence[Job], nodes: Sequence[Node] = NODES) -> dict[int, tuple[str, bool]]:
    found = plan(TREE, nodes, jobs, now=1000.0, valid_s=60.0, tell=True)
    return {one.job_id: (one.prefer, one.release) for one in found.told}


def test_waiting_jobs_are_told_once_and_again_when_it_changes():
    assert told([job(1, 4)]) == {1: ("tm-a", False)}
    assert told([job(1, 4, prefer="tm-a")]) == {}
    assert told([job(1, 4, prefer="tm-a|tm-b")]) == {1: ("tm-a", False)}
    assert told([job(1, 12, prefer="tm-a")]) == {1: ("", False)}


@pytest.mark.parametrize(
    "values",
    [
        {"prefer": "h200"},
        {"prefer": "tm-b|h200"},
        {"features": "h200"},
        {"required_nodes": "n01"},
        {"reservation": "maintenance"},
        {"comment": "mine tm-placement=off"},
        {"reason": "Dependency"},
        {"reason": "JobHeldUser"},
        {"partition": "batch,high"},
        {"state": "RUNNING", "nodes": "n[01-04]", "end_time": 2000.0},
    ],
)
def test_what_is_not_ours_to_place_is_left_alone(values: dict[str, object]):
    assert told([job(1, 4, **values)]) == {}


def test_a_preference_that_does_harm_is_taken_away():
    # Where Slurm looks at the preference it does not look at the constraint, which was added later.
    assert told([job(1, 4, prefer="tm-a", features="h200")]) == {1: ("", False)}
    assert told([job(1, 12, prefer="tm-a", reason="BadConstraints", priority=0)]) == {1: ("", True)}
    assert told([job(1, 12, prefer="tm-a", reason="BadConstraints")]) == {}, "Slurm only says so for a moment"
    # Held by somebody else for something else.
    assert told([job(1, 12, prefer="h200", reason="BadConstraints", priority=0)]) == {}


def test_nodes_that_are_drained_or_busy_are_not_counted_on():
    states = {1: "IDLE+DRAIN", 5: "ALLOCATED", 6: "DOWN*"}
    nodes = [node(number, state=states.get(number, "IDLE")) for number in range(1, 13)]
    assert told([job(1, 4)], nodes) == {1: ("tm-c", False)}


def test_a_partition_of_unlike_nodes_is_left_out_and_said_so():
    nodes = [node(number, gres="gpu:8" if number < 12 else "gpu:4") for number in range(1, 13)]
    found = plan(TREE, nodes, [job(1, 4)], now=1000.0, valid_s=60.0, tell=True)
    assert found.told == () and found.foresight.tables == () and "2 kinds" in found.remarks[0]


def test_pods_without_a_feature_are_named():
    nodes = [node(number, features=("gpu",)) for number in range(1, 13)]
    found = plan(TREE, nodes, [job(1, 4)], now=1000.0, valid_s=60.0, tell=True)
    assert found.told == () and "no feature stands for a, b, c" in found.remarks[0] and "size" not in found.text


def test_the_file_names_waiting_jobs_of_ours_alone():
    jobs = [
        job(1, 4, prefer="tm-a"),
        job(2, 2),
        job(3, 2, prefer="h200"),
        job(4, 2, prefer="tm-b", reason="Dependency"),
    ]
    text = plan(TREE, NODES, jobs, now=1000.0, valid_s=60.0, tell=False).text
    assert "\nours 1 4\n" in text and text.splitlines()[0] == "trainmaster-placements 1 made=1000 expires=1060"
    assert "\nours 1 2 4\n" in plan(TREE, NODES, jobs, now=1000.0, valid_s=60.0, tell=True).text


def test_many_waiting_jobs_are_told_in_several_passes():
    jobs = [job(number, 2) for number in range(1, 7)]
    assert len(told(jobs)) == 6
    assert foresight.WAITING_MAX >= 100


def test_nothing_is_written_where_slurm_would_refuse_what_it_does_not_know(tmp_path: Path):
    class Slurm:
        parameters = "bf_interval=30"
        updated: ClassVar[list[tuple[int | str, str]]] = []

        def config(self) -> dict[str, str]:
            return {"SchedulerParameters": self.parameters}

        def nodes(self, names: str = "") -> tuple[Node, ...]:
            return tuple(NODES)

        def all_jobs(self) -> tuple[Job, ...]:
            return (job(1, 4), job(2, 4))

        def update_job(self, job_id: int | str, **fields: str) -> None:
            if job_id == 1:
                raise SlurmError("it has started meanwhile")
            self.updated.append((job_id, fields["Prefer"]))

        def release(self, job_id: int | str) -> None:
            raise AssertionError("nobody is held")

    slurm, output = Slurm(), tmp_path / "run" / "placements"
    with pytest.raises(FabricError, match="would refuse"):
        one_pass(TREE, slurm, valid_s=60.0, output=output, tell=True)
    assert not output.exists() and not slurm.updated
    slurm.parameters = "bf_interval=30,ignore_prefer_validation"
    one_pass(TREE, slurm, valid_s=60.0, output=output, tell=True)
    assert output.read_text().startswith("trainmaster-placements 1 ") and slurm.updated == [(2, "tm-b")]
