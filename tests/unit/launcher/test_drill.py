"""Drills: what the record says of them, and that they are no evidence."""

from pathlib import Path
from typing import Any

import pytest

from trainmaster.errors import UsageError
from trainmaster.launcher import drills
from trainmaster.launcher.follow.drill import CAUSES, WHAT, Kind, course, in_words, node_for
from trainmaster.launcher.record import Event


def event(epoch_s: float, state: str, *, attempt: int = 0, cycle: int = 0, **more: Any) -> Event:
    return Event(epoch_s=epoch_s, job_id=7, attempt=attempt, cycle=cycle, state=state, **more)


BEFORE = [event(1, "SUBMITTED"), event(2, "RUNNING", nodes=("a", "b")), event(3, "PROGRESS")]
LOST = event(101, "RESTARTING", cause="node_death", dead=("b",))
AGAIN = event(102, "RUNNING", cycle=1, nodes=("a", "c"))
FIRST = event(104, "PROGRESS", cycle=1, detail={"first_step_epoch_s": 103})


def told(events: list[Event], *, kind: Kind = Kind.KILL_NODE, step: int | None = 50, new_step_s: float | None = None):
    return course(kind, "b", events, done_s=100.0, step_before=step, new_step_s=new_step_s)


def test_every_kind_has_words_and_causes():
    assert set(WHAT) == set(CAUSES) == set(Kind)


def test_from_the_fault_to_a_new_step():
    now = told([*BEFORE, LOST, AGAIN, FIRST], new_step_s=5.0)
    assert (now.found_s, now.found, now.cause, now.running_s, now.first_step_s) == (1, "RESTARTING", "node_death", 2, 3)
    assert (now.nodes_before, now.nodes_after) == (("a", "b"), ("a", "c"))
    assert now.right_cause and now.recovered
    text = "\n".join(in_words(now))
    assert "after step 50" in text and "b left, c came" in text and text.endswith("recovered")


@pytest.mark.parametrize("seen", [0, 1, 2, 3])
def test_not_recovered_before_a_new_step(seen):
    now = told([*BEFORE, *[LOST, AGAIN, FIRST][:seen]])
    assert not now.recovered
    assert in_words(now)[-1].strip() in ("the job has not noticed anything", "the job has not recovered")


def test_a_step_done_between_the_look_and_the_fault_is_not_new():
    late = event(101, "RESTARTING", cause="node_death", dead=("b",), step=53)
    assert told([*BEFORE, late]).step_before == 53
    assert told([*BEFORE, late], step=60).step_before == 60
    assert told([*BEFORE, late], step=None).step_before is None


def test_a_job_that_reports_no_steps_has_recovered_when_its_ranks_run():
    assert told([*BEFORE, LOST, AGAIN], step=None).recovered


def test_an_end_is_no_recovery_and_another_cause_is_named():
    now = told([*BEFORE, event(101, "FAILED_INFRA", cause="requeues_exhausted")])
    assert not now.recovered and not now.right_cause
    assert "(expected: node_death)" in "\n".join(in_words(now))


def test_what_happened_before_the_drill_is_not_its_doing():
    early = [*BEFORE, event(50, "RESTARTING", cause="rank_crash"), event(51, "RUNNING", cycle=1, nodes=("a", "b"))]
    assert told(early).found_s is None
    assert told(early).nodes_before == ("a", "b")


def test_the_batch_host_is_never_taken():
    assert node_for(("a", "b", "c"), batch_host="c", wanted=None) == "b"
    with pytest.raises(UsageError, match="the job runs on a alone"):
        node_for(("a",), batch_host="a", wanted=None)
    with pytest.raises(UsageError, match="the job's batch script runs there"):
        node_for(("a", "b"), batch_host="a", wanted="a")
    with pytest.raises(UsageError, match="the job has no rank on z"):
        node_for(("a", "b"), batch_host="a", wanted="z")


def test_drills_are_remembered_for_their_time(tmp_path: Path):
    assert drills.nodes_of(tmp_path, epoch_s=0) == frozenset()
    drills.note(tmp_path, kind="hang", node="n1", by="me", epoch_s=10_000)
    with (tmp_path / drills.FILE).open("a") as file:
        file.write('{"epoch_s": "torn\n')
    assert drills.nodes_of(tmp_path, epoch_s=10_060) == {"n1"}
    assert drills.nodes_of(tmp_path, epoch_s=9_990) == {"n1"}, "a hang began with the last step"
    assert drills.nodes_of(tmp_path, epoch_s=10_000 + 2 * drills.COUNTS_FOR_S) == frozenset()
