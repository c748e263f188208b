"""Waiting: the record's end counts; Slurm is asked rarely, and what it does not know is never called finished."""

import json
import os

import pytest

from fakes.clock import FakeClock
from fakes.slurm import FakeSlurm
from trainmaster.errors import SlurmUnreachable
from trainmaster.launcher import intent, plan, record
from trainmaster.launcher.follow.outcome import UNLISTED_MAX_S
from trainmaster.launcher.follow.queue import LOOK_EVERY_S, Queue
from trainmaster.launcher.follow.watch import GRACE_S, Blind, Watch


class Scene:
    """One job that Slurm knows as running, and somebody who waits for it."""

    def __init__(self, run_dir, *, just_submitted=True):
        self.run_dir = run_dir
        self.clock = FakeClock()
        self.slurm = FakeSlurm()
        self.slurm.put(12, "RUNNING", std_out=str(run_dir / "batch.out"))
        self.queue = Queue(self.slurm, clock=self.clock, start=lambda work: work())
        self.watch = Watch(run_dir, 12, self.queue, clock=self.clock, just_submitted=just_submitted)

    def write(self, state, **values):
        values = {"attempt": 0, "cycle": 0} | values
        now_s = self.clock.now().timestamp()
        record.append(self.run_dir, record.Event(epoch_s=now_s, job_id=12, state=state, **values))


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path)


def test_the_end_is_seen_at_once_and_slurm_is_not_asked(scene):
    scene.clock.at(3.0, lambda: scene.write("SUCCEEDED"))
    end = scene.watch.wait()
    assert end is not None and end.state == "SUCCEEDED"
    assert scene.clock.passed_s < 3.2
    assert not scene.slurm.calls


def test_a_long_wait_asks_slurm_four_times_a_minute_at_most(scene):
    scene.clock.at(600.0, lambda: scene.write("SUCCEEDED"))
    scene.watch.wait()
    assert 30 <= scene.slurm.calls["jobs"] <= 600 / LOOK_EVERY_S
    assert scene.slurm.calls["job"] == 0


def test_many_waiting_jobs_cost_no_more_than_one(scene, tmp_path):
    watches = []
    for number in range(20, 120):
        (tmp_path / str(number)).mkdir()
        scene.slurm.put(number, "PENDING")
        watches.append(Watch(tmp_path / str(number), number, scene.queue, clock=scene.clock))
    for _ in range(60):
        assert not any(watch.settle() for watch in watches)
        scene.clock.sleep_s(1.0)
    assert scene.slurm.calls["jobs"] <= 5


def test_an_end_of_an_earlier_attempt_does_not_count(scene):
    scene.write("FAILED_INFRA", attempt=0)
    scene.write("STARTING", attempt=1)
    assert scene.watch.settle() is None
    assert scene.watch.state() == "STARTING"
    scene.write("SUCCEEDED", attempt=1)
    assert scene.watch.settle().attempt == 1


def test_a_job_cancelled_while_pending_ends_cancelled(scene):
    scene.write("SUBMITTED")
    scene.slurm.put(12, "PENDING")
    scene.clock.at(20.0, lambda: scene.slurm.put(12, "CANCELLED"))
    end = scene.watch.wait()
    assert (end.state, end.detail["by"]) == ("CANCELLED", "watcher")
    assert scene.clock.passed_s < 20 + LOOK_EVERY_S + 1
    assert record.end_of(record.read(scene.run_dir)) == end


@pytest.mark.parametrize(
    ("slurm_state", "state"),
    [
        ("TIMEOUT", "TIMED_OUT"),
        ("NODE_FAIL", "FAILED_INFRA"),
        ("OUT_OF_MEMORY", "OUT_OF_MEMORY"),
        ("PREEMPTED", "PREEMPTED"),
        ("FAILED", "FAILED_INFRA"),
        ("COMPLETED", "LOST"),
        ("SOMETHING_NEW_THAT_ENDED", None),
    ],
)
def test_slurms_evidence_decides_when_the_record_is_silent(scene, slurm_state, state):
    scene.write("RUNNING", nodes=("n01",), step=7)
    scene.slurm.put(12, slurm_state, exit_code="1:0")
    end = scene.watch.wait(timeout_s=120.0)
    if state is None:  # a state that we do not know is no end
        assert end is None
    else:
        assert (end.state, end.nodes, end.step) == (state, ("n01",), 7)


def test_a_job_that_slurm_forgot_is_lost_not_finished(scene):
    del scene.slurm.known[12]
    assert scene.watch.wait().state == "LOST"


def test_a_job_that_slurm_forgot_after_a_cancel_is_cancelled(scene):
    del scene.slurm.known[12]
    (scene.run_dir / "cancel.json").write_text("{}")
    assert scene.watch.wait().state == "CANCELLED"


def test_the_records_end_wins_over_slurms_within_the_grace(scene):
    scene.slurm.put(12, "COMPLETED", nodes="n01")
    scene.clock.at(LOOK_EVERY_S + GRACE_S / 2, lambda: scene.write("SUCCEEDED"))
    assert scene.watch.wait().state == "SUCCEEDED"


def test_another_job_with_the_same_number_is_not_ours(tmp_path):
    scene = Scene(tmp_path)
    scene.slurm.put(12, "COMPLETED", std_out="/elsewhere/20990101-000000-ffffff/batch.out")
    assert scene.watch.wait().state == "LOST"


def test_a_running_job_with_the_same_number_is_not_ours(tmp_path):
    scene = Scene(tmp_path, just_submitted=False)
    scene.write("SUBMITTED")
    scene.slurm.put(12, "RUNNING", submit_time=scene.clock.start_s + 5000)
    scene.clock.sleep_s(10_000.0)
    scene.slurm.put(12, "RUNNING", submit_time=scene.clock.start_s + 5000, std_out="/elsewhere/x/batch.out")
    assert scene.watch.wait().state == "LOST"


def test_waiting_goes_on_while_slurmctld_is_away_and_says_so_once(scene, caplog):
    scene.slurm.fail["jobs"] = [SlurmUnreachable("Unable to contact slurm controller")] * 10
    scene.clock.at(120.0, lambda: scene.write("SUCCEEDED"))
    assert scene.watch.wait().state == "SUCCEEDED"
    assert caplog.text.count("Slurm does not tell") == 1


def test_a_job_that_vanishes_while_slurmctld_restarts_is_not_lost_too_soon(scene):
    scene.slurm.put(12, "COMPLETED")
    scene.slurm.fail["job"] = [SlurmUnreachable("down")] * 3
    scene.clock.at(50.0, lambda: scene.write("SUCCEEDED"))
    assert scene.watch.wait().state == "SUCCEEDED"


def test_who_waits_for_a_cluster_that_is_gone_is_told_and_may_give_up(scene, caplog):
    scene.write("RUNNING", step=7)
    scene.slurm.fail["jobs"] = [SlurmUnreachable("Unable to contact slurm controller")] * 10_000
    told = []
    assert scene.watch.wait(timeout_s=2 * 3600.0, on_blind=told.append) is None
    assert 5 <= len(told) <= 20
    assert told[0].silent_s >= 60.0 and told[-1].silent_s > 3600.0
    assert "Unable to contact" in str(told[0]) and "RUNNING" in str(told[0])
    assert scene.watch.settle() is None and not record.end_of(record.read(scene.run_dir))


def test_who_waits_is_not_told_of_a_slurmctld_that_restarts(scene):
    scene.write("RUNNING")
    scene.slurm.fail["jobs"] = [SlurmUnreachable("down")] * 2
    scene.clock.at(300.0, lambda: scene.write("SUCCEEDED"))
    told = []
    assert scene.watch.wait(on_blind=told.append).state == "SUCCEEDED"
    assert told == []


def test_a_job_that_lives_is_said_to_live_while_slurm_is_silent(scene):
    scene.write("RUNNING")
    scene.slurm.fail["jobs"] = [SlurmUnreachable("down")] * 100
    told = []

    def sign_of_life():
        now_s = scene.clock.now().timestamp()
        os.utime(scene.run_dir / record.FILE, (now_s, now_s))

    for moment in range(1, 110):
        scene.clock.at(float(moment), sign_of_life)
    scene.watch.wait(timeout_s=100.0, on_blind=told.append)
    assert len(told) == 1 and "so it runs" in str(told[0])


@pytest.mark.parametrize(
    ("accounts", "asked", "by"),
    [("alice", None, "alice"), (None, None, "not by trainmaster"), (None, "bob", "bob"), ("alice", "bob", "alice")],
)
def test_who_cancelled_a_job_that_could_not_say(scene, accounts, asked, by):
    scene.slurm.put(12, "CANCELLED")
    if accounts:
        scene.slurm.cancellers["12"] = accounts
    if asked:
        (scene.run_dir / "cancel.json").write_text(json.dumps({"by": asked}))
    assert scene.watch.wait().detail["cancelled_by"] == by


def test_a_task_of_an_array_is_ours_by_the_arrays_folder(tmp_path):
    clock, slurm = FakeClock(), FakeSlurm()
    run_dir = tmp_path / "20260101-000000-abcdef" / "3"
    run_dir.mkdir(parents=True)
    queue = Queue(slurm, clock=clock, start=lambda work: work())
    watch = Watch(run_dir, "12_3", queue, clock=clock)
    values = {"array_job_id": 12, "array_tasks": "1-5"}
    slurm.put(12, "PENDING", std_out=str(run_dir.parent / "%a" / "batch.out"), **values)
    assert watch.settle() is None and watch.queued() is not None
    slurm.put(12, "PENDING", std_out="/elsewhere/20250101-000000-ffffff/3/batch.out", **values)
    watch.hurry()
    assert watch.queued() is None


def test_a_requeued_job_is_waited_for(scene):
    scene.write("STARTING")
    scene.write("REQUEUED", cause="node_death")
    scene.slurm.put(12, "PENDING")
    assert scene.watch.wait(timeout_s=60.0) is None
    assert scene.watch.state() == "REQUEUED"
    scene.slurm.put(12, "RUNNING")
    scene.clock.sleep_s(LOOK_EVERY_S)
    assert scene.watch.state() == "STARTING"


def test_an_old_job_that_is_attached_again_is_settled_at_once(tmp_path):
    scene = Scene(tmp_path, just_submitted=False)
    scene.slurm.put(12, "CANCELLED", end_time=scene.clock.start_s - 100)
    assert scene.watch.settle().state == "CANCELLED"
    assert scene.slurm.calls == {"jobs": 1, "job": 1, "cancelled_by": 1}


def test_a_record_that_cannot_be_written_still_gives_the_end(tmp_path, caplog):
    scene = Scene(tmp_path / "gone", just_submitted=False)
    scene.slurm.put(12, "CANCELLED", end_time=scene.clock.start_s - 100)
    assert scene.watch.settle().state == "CANCELLED"
    assert scene.watch.settle().state == "CANCELLED"
    assert "could not add the end" in caplog.text


def test_after_a_cancel_slurm_is_asked_at_once(scene):
    scene.write("SUBMITTED")
    assert scene.watch.settle() is None
    scene.slurm.put(12, "CANCELLED")
    scene.watch.hurry()
    assert scene.watch.settle().state == "CANCELLED"


def test_a_lost_node_is_no_state_of_the_job(scene):
    scene.write("RUNNING")
    scene.write("NODE_LOST", dead=("n02",))
    assert scene.watch.state() == "RUNNING"


def test_a_requeued_job_is_not_called_starting_by_what_slurm_said_of_the_attempt_before(scene):
    scene.write("STARTING")
    assert scene.watch.state() == "STARTING"
    scene.clock.sleep_s(5.0)
    scene.write("REQUEUED", cause="requeue")
    assert scene.watch.state() == "REQUEUED"


def test_who_waits_releases_a_requeued_job_that_slurm_holds(scene):
    plan.write(
        scene.run_dir, plan.Plan(uid="u", name="n", run_dir=str(scene.run_dir), python="p", nodes=1, exclude="n09")
    )
    scene.write("REQUEUED", detail={"excluded": ["n02"]})
    scene.slurm.put(12, "PENDING", reason="BeginTime")
    assert scene.watch.wait(timeout_s=40.0) is None
    assert scene.slurm.updated[0] == ("12", {"StartTime": "now", "ExcNodeList": "n09,n02"})


def test_an_attempt_that_slurmd_refused_is_no_end_until_it_was_tried_again(scene):
    scene.write("STARTING")
    scene.write("REQUEUED", cause="requested")
    scene.slurm.put(12, "FAILED", restarts=1, exit_code="1:0", nodes="n01", end_time=scene.clock.start_s + 1)
    assert scene.watch.wait(timeout_s=60.0) is None
    assert scene.slurm.requeued
    scene.slurm.put(12, "FAILED", restarts=4, exit_code="1:0", nodes="n01", end_time=scene.clock.start_s + 1)
    assert scene.watch.wait(timeout_s=60.0).state == "FAILED_INFRA"


def test_a_requeued_job_that_waits_for_nodes_is_left_alone(scene):
    scene.write("REQUEUED")
    scene.slurm.put(12, "PENDING", reason="Resources")
    assert scene.watch.wait(timeout_s=40.0) is None
    assert scene.slurm.updated == []


def test_a_job_that_is_cancelled_while_a_dead_node_still_completes_is_said_to_be_cancelling(scene):
    """It was called REQUEUED until Slurm let go of the dead node, up to SlurmdTimeout."""
    scene.write("STARTING")
    scene.write("REQUEUED", cause="node_death")
    scene.slurm.put(12, "COMPLETING")
    assert scene.watch.state() == "REQUEUED"
    intent.leave(scene.run_dir, intent.CANCEL)
    assert scene.watch.state() == "CANCELLING"
    scene.slurm.put(12, "CANCELLED", nodes="", end_time=scene.clock.start_s)
    scene.watch.hurry()
    assert scene.watch.settle(patience_s=1.0).state == "CANCELLED"
    assert scene.watch.state() == "CANCELLED"


def test_a_job_that_is_in_no_queue_for_a_moment_is_what_its_record_says_last(scene):
    scene.write("RUNNING")
    scene.slurm.known.clear()
    scene.watch.hurry()
    assert scene.watch.state_seen(scene.watch.queued(patience_s=1.0)) == "UNKNOWN"
    scene.write("REQUEUED", cause="requeue")
    assert scene.watch.state_seen(None) == "REQUEUED"
    intent.leave(scene.run_dir, intent.CANCEL)
    now_s = scene.clock.now().timestamp()
    (scene.run_dir / "cancel.json").write_text(json.dumps({"by": "bob", "time": now_s}))
    assert scene.watch.state_seen(None) == "CANCELLING"
    scene.clock.sleep_s(UNLISTED_MAX_S)
    assert scene.watch.state_seen(None) == "UNKNOWN"


def test_a_cluster_that_does_not_answer_leaves_the_state_unknown(scene):
    scene.write("REQUEUED")
    scene.slurm.fail = {verb: [SlurmUnreachable("down")] * 9 for verb in ("jobs", "job")}
    scene.watch.hurry()
    assert scene.watch.state_seen(scene.watch.queued(patience_s=1.0)) == "UNKNOWN"


def test_a_silence_that_has_just_begun_is_not_one_of_0_s():
    """It said: has not answered for 0 s."""
    blind = Blind(job_id="1", silent_s=0.2, why="it is down", state="PENDING", sign_s=None)
    assert "Slurm does not answer (it is down)" in str(blind)
