"""What faults decide without a lab."""

from dataclasses import fields

import pytest

from trainmaster.errors import UsageError
from trainmaster.lab import faults
from trainmaster.lab.faults import FAULTS, Options
from trainmaster.lab.faults.rank import parse_target, topmost
from trainmaster.lab.faults.service import is_down
from trainmaster.lab.processes import Process
from trainmaster.slurm.values import Node


def test_every_fault_has_a_name_of_its_own_and_says_what_it_does() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    known = {field.name for field in fields(Options)}
    for fault in FAULTS:
        assert faults.find(fault.name) is fault
        assert fault.help
        assert set(fault.options) <= known - {"dry_run"}


def test_an_unknown_fault_is_answered_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="node-death"):
        faults.find("meteor")


@pytest.mark.parametrize(("text", "target"), [("17:3", ("17", 3)), ("17", ("17", 0)), ("17_2:1", ("17_2", 1))])
def test_a_rank_target(text: str, target: tuple[str, int]) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize("text", ["n01", "17:", "17:x", ":3", "17:-1", "17:3:4", "17_", "17_x:1"])
def test_a_rank_target_that_means_nothing(text: str) -> None:
    with pytest.raises(UsageError, match="is not JOB"):
        parse_target(text)


def process(pid: int, parent: int) -> Process:
    return Process(pid=pid, start_time=1, parent=parent, session=1, state="S")


def test_a_rank_is_the_topmost_of_its_processes() -> None:
    rank, loader, loaders_child = process(10, 5), process(11, 10), process(12, 11)
    assert topmost([loaders_child, loader, rank]) == [rank]


@pytest.mark.parametrize(
    ("state", "down"),
    [("DOWN", True), ("DOWN*", True), ("DOWN+NOT_RESPONDING", True), ("IDLE+DRAIN", False), ("MIXED", False)],
)
def test_which_nodes_are_down(state: str, down: bool) -> None:
    assert is_down(Node(name="n01", state=state)) is down
