"""What an observer's looks say of a train."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

from measure.train_figures import drains, idle_out_s, interruptions, longest_gap_s, read, serving


def line(at: float, nodes: str, *jobs: tuple[str, str, int, int, str]) -> str:
    states = dict(zip(("n1", "n2"), nodes.split(), strict=True))
    return json.dumps({"at": at, "nodes": states, "jobs": {one[0]: one[1:] for one in jobs}}) + "\n"


def test_only_nodes_that_are_out_and_idle_cost_something() -> None:
    looks = read(
        [
            line(0.0, "IDLE ALLOCATED"),
            line(1.0, "IDLE+MAINTENANCE ALLOCATED+DRAIN"),
            line(3.0, "IDLE+MAINTENANCE+DRAIN ALLOCATED+DRAIN"),
            line(4.0, "DOWN+DRAIN IDLE+DRAIN"),
            line(5.0, "IDLE IDLE"),
            '{"torn',
        ]
    )
    assert [serving(one) for one in looks] == [2, 0, 0, 0, 2]
    assert idle_out_s(looks) == 1 * 2.0 + 1 * 1.0 + 2 * 1.0
    assert drains(looks) == {"n1": 1, "n2": 1}
    assert longest_gap_s(looks) == 2.0


def test_a_requeue_costs_the_wait_and_what_was_not_saved() -> None:
    looks = read(
        [
            line(0.0, "IDLE IDLE", ("1", "PENDING", 0, 2, "a"), ("2", "PENDING", 0, 1, "b")),
            line(1.0, "ALLOCATED ALLOCATED", ("1", "RUNNING", 0, 2, "a"), ("2", "RUNNING", 0, 1, "b")),
            line(9.0, "ALLOCATED ALLOCATED", ("1", "RUNNING", 0, 2, "a"), ("2", "RUNNING", 0, 1, "b")),
            line(10.0, "IDLE IDLE", ("1", "PENDING", 1, 2, "a"), ("2", "PENDING", 1, 1, "b")),
            line(12.0, "IDLE IDLE", ("1", "RUNNING", 1, 2, "a"), ("2", "RUNNING", 1, 1, "b")),
        ]
    )
    found = interruptions(looks, ["a"])
    assert (found.requeues, found.waiting_s) == (2, 1.0 * 3)
    assert found.undone_s == 1 * (10.0 - 1.0)
    assert interruptions(looks[:3], ["a"]).requeues == 0
