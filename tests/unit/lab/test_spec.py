"""From a LabSpec to nodes."""

import pytest

from trainmaster.errors import LabError
from trainmaster.lab.spec import LabSpec, PartitionSpec, parse_partition, parse_settings, plan_nodes


def names(*partitions: PartitionSpec) -> list[str]:
    return [node.name for node in plan_nodes(LabSpec(partitions=partitions))]


def test_names_grow_with_the_number_of_nodes() -> None:
    assert [node.name for node in plan_nodes(LabSpec(nodes=100))][:1] == ["n001"]


def test_each_kind_has_its_own_names() -> None:
    kinds = [PartitionSpec(name=name, nodes=1) for name in ("gpu", "highmem", "cpu", "a100")]
    assert names(*kinds) == ["n01", "hm01", "cpu01", "a100-01"]


def test_two_kinds_never_share_a_name() -> None:
    assert names(PartitionSpec(name="batch", nodes=1), PartitionSpec(name="gpu", nodes=1)) == ["n01", "gpu01"]


def test_kinds_differ_in_features_and_memory() -> None:
    gpu, highmem, cpu = plan_nodes(LabSpec(partitions=tuple(map(parse_partition, ("gpu:1x8", "highmem:1", "cpu:1")))))
    assert ("gpu" in gpu.features, "highmem" in highmem.features, cpu.features) == (True, True, ("cpu", "ib"))
    assert highmem.memory_mib > gpu.memory_mib > cpu.memory_mib


def test_a_kind_may_say_what_its_nodes_have() -> None:
    kinds = tuple(map(parse_partition, ("gpu:1x8", "highmem:1,cpus=32,mem=2T", "cpu:1,mem=500M")))
    assert [(node.cpus, node.memory_mib) for node in plan_nodes(LabSpec(partitions=kinds))] == [
        (8, 1024 * 1024),
        (32, 2 * 1024 * 1024),
        (8, 500),
    ]


@pytest.mark.parametrize(
    "text",
    ["", "gpu", "gpu:", "gpu:1,mem=5", "gpu:1,cpus=", "gpu:x8", "gpu:8x", "8:gpu", "gpu:-1", "g pu:1", "gpu:1x8x8"],
)
def test_a_partition_that_cannot_be_read(text: str) -> None:
    with pytest.raises(LabError, match="cannot be read"):
        parse_partition(text)


@pytest.mark.parametrize("text", ["", "SlurmdTimeout", "=15", "Slurmd Timeout=15", "a;b=1"])
def test_a_setting_that_cannot_be_read(text: str) -> None:
    with pytest.raises(LabError, match="cannot be read"):
        parse_settings((text,))


def test_a_setting_may_hold_equals_signs() -> None:
    assert parse_settings(("AuthInfo=cred_expire=5",)) == {"AuthInfo": "cred_expire=5"}


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        (LabSpec(nodes=0), "0 nodes"),
        (LabSpec(gpus=27), "27 GPUs"),
        (LabSpec(gpus=-1), "-1 GPUs"),
        (LabSpec(leaf=-1), "leaf=-1"),
        (LabSpec(cpus=0), "cpus=0"),
        (LabSpec(nodes=2, real_gpus=True), "own GPUs"),
        (LabSpec(partitions=(PartitionSpec(name="high", nodes=1),)), "the lab's own"),
        (LabSpec(partitions=(PartitionSpec(name="a", nodes=1), PartitionSpec(name="a", nodes=2))), "given twice"),
    ],
)
def test_a_lab_that_cannot_be_built(spec: LabSpec, fault: str) -> None:
    with pytest.raises(LabError, match=fault):
        plan_nodes(spec)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(LabError) as caught:
        plan_nodes(LabSpec(nodes=0, gpus=99, cpus=0))
    assert all(fault in caught.value.message for fault in ("0 nodes", "99 GPUs", "cpus=0"))
