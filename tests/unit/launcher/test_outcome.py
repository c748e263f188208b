"""The words for how a job ended."""

from dataclasses import replace
from pathlib import Path

from trainmaster.launcher.follow import logs
from trainmaster.launcher.follow.life import cycles_of
from trainmaster.launcher.follow.outcome import NOT_LISTED_YET_S, explain, state_of, state_unlisted
from trainmaster.launcher.follow.progress import line_of
from trainmaster.launcher.record import Event
from trainmaster.slurm.values import Job


def event(state, **values):
    return Event(epoch_s=0.0, job_id=12, attempt=0, cycle=0, state=state, **values)


def test_the_first_failing_rank_is_shown_with_its_traceback_and_log():
    failure = {
        "rank": 3,
        "node": "n04",
        "exit_code": 1,
        "signal": None,
        "traceback": "ValueError: x",
        "log": "/r/rank3.err",
    }
    end = event("FAILED_USER", cause="no_progress", detail={"failure": failure})
    text = explain(end, name="train", log=Path("/r/batch.out"), log_end="noise")
    for word in (
        "12 'train' ended FAILED_USER (no_progress)",
        "rank: 3 on n04, exit code 1",
        "ValueError: x",
        "/r/rank3.err",
    ):
        assert word in text
    assert "noise" not in text


def test_a_start_that_failed_blames_no_rank():
    """It said "first failing rank: -1"."""
    failure = {
        "rank": -1,
        "node": "n02",
        "exit_code": 71,
        "signal": None,
        "traceback": "srun said: no",
        "log": "/b.out",
    }
    end = event("FAILED_INFRA", cause="start", detail={"failure": failure})
    text = explain(end, name="x", log=Path(), log_end="")
    assert "no rank could be started; failed: n02\n" in text and "srun said: no" in text
    (row,) = cycles_of([end])
    for words in (text, row.why, line_of(end)):
        assert "-1" not in words and "71" not in words
    assert row.why == "start, failed: n02"


def test_jobs_show_does_not_end_with_its_own_command():
    end = event("FAILED_INFRA", cause="start")
    assert explain(end, name="x", log=Path(), log_end="").endswith("trainmaster jobs show 12")
    assert "jobs show" not in explain(end, name="x", log=Path(), log_end="", show_told=True)


def test_a_signal_is_named():
    failure = {"rank": 0, "node": "n01", "exit_code": None, "signal": 11, "traceback": "", "log": ""}
    assert "n01, SIGSEGV" in explain(
        event("FAILED_USER", detail={"failure": failure}), name="x", log=Path(), log_end=""
    )


def test_without_a_failure_the_batch_output_and_slurms_word_are_shown():
    end = event("FAILED_INFRA", detail={"by": "watcher", "slurm_state": "FAILED", "slurm_reason": "NonZeroExitCode"})
    text = explain(end, name="x", log=Path("/r/batch.out"), log_end="No module named trainmaster\n")
    assert "Slurm says FAILED, NonZeroExitCode" in text
    assert "No module named trainmaster" in text


def test_states():
    assert state_of(()) == "PENDING"
    assert state_of([event("SUBMITTED")], Job(job_id=12, state="CONFIGURING")) == "STARTING"
    assert state_of([event("PROGRESS")]) == "RUNNING"
    assert state_of([event("RESTARTING")]) == "RESTARTING"
    assert state_of([event("STARTING"), event("LOST")]) == "LOST"


def test_the_end_of_a_file_is_bounded_even_when_it_is_one_line(tmp_path):
    file = tmp_path / "log"
    with file.open("wb") as stream:
        stream.truncate(100_000_000)
        stream.seek(0, 2)
        stream.write(b"the end")
    text = logs.tail(file, bytes_max=1000)
    assert len(text) == 1000 and text.endswith("the end")
    file.write_text("one\ntwo\nthree\n")
    assert logs.tail(file, bytes_max=9) == "three\n"
    assert logs.tail(tmp_path / "none") == ""


def test_cycles_are_in_the_order_of_their_start(tmp_path):
    for name in ("attempt0.2", "attempt0.10", "attempt1.0", "attemptx.1", "other"):
        (tmp_path / name).mkdir()
    told = [replace(event("RUNNING"), attempt=a, cycle=c) for a, c in ((0, 0), (0, 10), (0, 2))]
    # 1.0 has a folder before the record says that it runs; 0.0 was cleaned away.
    assert [(cycle.attempt, cycle.cycle) for cycle in logs.cycles(tmp_path, told)] == [(0, 2), (0, 10), (1, 0)]


def test_following_goes_on_from_cycle_to_cycle(tmp_path):
    folders = [tmp_path / "attempt0.0", tmp_path / "attempt0.1"]
    folders[0].mkdir()
    (folders[0] / "rank0.out").write_text("one\n")
    turns = iter(range(100))

    def over() -> bool:
        turn = next(turns)
        if turn == 2:
            folders[1].mkdir()
            (folders[1] / "rank0.out").write_text("two\n")
        return turn == 4

    said = b"".join(logs.follow(tmp_path, "rank0.out", over=over, poll_s=0.0))
    assert said == b"one\n--- attempt 0, cycle 1 ---\ntwo\n"


def test_what_was_submitted_after_the_queue_was_listed_is_pending():
    """Every task of a new array was UNKNOWN for a quarter of a minute."""
    events = [event("SUBMITTED")]
    assert state_unlisted(events, cancelled=None, now_s=NOT_LISTED_YET_S - 1) == "PENDING"
    assert state_unlisted(events, cancelled=None, now_s=NOT_LISTED_YET_S + 1) == "UNKNOWN"
    assert state_unlisted([*events, event("RUNNING")], cancelled=None, now_s=1.0) == "UNKNOWN"
