"""Why Slurm ends a job: whoever left word, then slurmstepd's words, then Slurm's state. Texts as Slurm wrote them."""

import pytest

from trainmaster.launcher import intent
from trainmaster.launcher.supervise.slurm_side import asked_by, ending_of, output_since, told_by_stepd
from trainmaster.slurm.values import Job

HEAD = "slurmstepd-n01: error: *** JOB 19 ON n01 CANCELLED AT 2026-11-23T10:57:00"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (f"{HEAD} DUE TO TIME LIMIT ***\n", "timeout"),
        (f"{HEAD} DUE TO PREEMPTION ***\n", "preemption"),
        (f"{HEAD} DUE TO JOB REQUEUE ***\n", "requeue"),
        (f"{HEAD} DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***\n", "node_failure"),
        (f"{HEAD} ***\n", "user"),
        (f"[2026-11-23T10:57:00.123] {HEAD.partition(': ')[2]} DUE TO TIME LIMIT ***", "timeout"),
        (f"{HEAD} DUE TO SOMETHING NEW ***\n", None),
        ("slurmstepd-n01: error: *** STEP 19.0 ON n01 CANCELLED AT 2026-11-23T10:57:00 ***\n", None),
        ("nothing of the kind", None),
    ],
)  # fmt: skip
def test_slurmstepds_words(text, cause):
    assert told_by_stepd(f"noise *** x\n{text}srun: forcing job termination\n") == cause


def test_the_last_of_several_attempts_counts(tmp_path):
    (tmp_path / "batch.out").write_text(f"{HEAD} DUE TO JOB REQUEUE ***\n")
    before = (tmp_path / "batch.out").stat().st_size
    assert told_by_stepd(output_since(tmp_path, before)) is None
    with (tmp_path / "batch.out").open("a") as stream:
        stream.write("x" * 200_000 + f"\n{HEAD} ***\n")
    assert told_by_stepd(output_since(tmp_path, before)) == "user"
    assert output_since(tmp_path / "gone", 0) == ""


COMPLETING = Job(job_id=19, state="COMPLETING")


@pytest.mark.parametrize(
    ("job", "told", "cause"),
    [
        (COMPLETING, "timeout", "timeout"),
        (Job(job_id=19, state="COMPLETING", reason="TimeLimit"), None, "timeout"),
        (Job(job_id=19, state="COMPLETING", restarts=1), None, "requeue"),
        (Job(job_id=19, state="COMPLETING", restarts=1), "preemption", "preemption"),
        (Job(job_id=19, state="RUNNING", preempt_time=5.0), None, "preemption"),
        (Job(job_id=19, state="CANCELLED"), None, "user"),
        (None, "timeout", "timeout"),
        (None, None, "node_failure"),
    ],
)
def test_a_completing_job_hides_its_state_so_the_words_decide(tmp_path, job, told, cause):
    assert ending_of(job, tmp_path, attempt=0, told=told) == cause


def test_who_left_word_goes_before_all(tmp_path):
    intent.leave(tmp_path, intent.REQUEUE, reason="new data", attempt=0)
    assert ending_of(COMPLETING, tmp_path, attempt=0, told="timeout") == "requeue"
    assert ending_of(COMPLETING, tmp_path, attempt=1, told="timeout") == "timeout"
    assert asked_by(tmp_path, "requeue", attempt=0)["reason"] == "new data"
    assert asked_by(tmp_path, "requeue", attempt=1) == {"requeued_by": "not by trainmaster"}
    intent.leave(tmp_path, intent.CANCEL)
    assert ending_of(COMPLETING, tmp_path, attempt=0) == "user"


def test_word_that_a_full_disk_cut_short_still_counts(tmp_path):
    (tmp_path / "cancel.json").write_text('{"by": "ali')
    assert intent.found(tmp_path, intent.CANCEL) == intent.Intent()
    intent.drop(tmp_path, intent.CANCEL)
    assert intent.found(tmp_path, intent.CANCEL) is None
