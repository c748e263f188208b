"""squeue's records, as 22.05 prints them, and what users write into them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster.slurm import job_text

MARK = "x00ffx"
# A value for each field, as a job that runs has them on 22.05.8.
RUNNING = {
    **dict.fromkeys(job_text.FIELDS, "(null)"),
    **{"JobID": "12", "Name": "train=fast v2", "UserName": "alice", "State": "RUNNING", "Reason": "None"},
    **{"Partition": "batch", "Nodelist": "n[01-02,05]", "NumNodes": "3", "RestartCnt": "2", "Requeue": "1"},
    **{"exit_code": "0", "SubmitTime": "2026-11-23T07:00:00", "EligibleTime": "N/A", "StartTime": "N/A"},
    **{"PreemptTime": "N/A", "ReqNodes": "", "PriorityLong": "4294901757", "BatchHost": "n01"},
    **{"STDOUT": "/home/alice/run/batch.out", "WorkDir": "/home/alice", "Comment": "a b", "ArrayJobID": "12"},
    **{"ArrayTaskID": "N/A", "HetJobID": "N/A", "HetJobOffset": "N/A", "Nice": "0", "admin_comment": ""},
}


def record(**fields: str) -> str:
    return "".join(value + MARK for value in (RUNNING | fields).values()) + "\n"


def test_a_running_job() -> None:
    (job,) = job_text.jobs(record(), MARK)
    assert (job.job_id, job.name, job.user, job.state, job.restarts) == (12, "train=fast v2", "alice", "RUNNING", 2)
    assert (job.nodes, job.batch_host) == ("n[01-02,05]", "n01")
    assert job.reason == "" and job.comment == "a b" and job.eligible_time is None and job.submit_time is not None
    assert (job.priority, job.node_count, job.requeue, job.exit_code) == (4294901757, 3, True, "0:0")
    assert (job.array_job_id, job.het_job_id, job.het_offset, job.array_tasks) == (0, 0, None, "")
    assert job.active


@pytest.mark.parametrize("state", ["COMPLETED", "TIMEOUT", "NODE_FAIL"])
def test_ended(state: str) -> None:
    assert not job_text.jobs(record(State=state), MARK)[0].active


def test_unknown_state_is_not_an_end() -> None:
    assert job_text.jobs(record(State="BRAND_NEW_STATE"), MARK)[0].active


def test_tasks_and_parts() -> None:
    fields = {"JobID": "14", "ArrayJobID": "12", "ArrayTaskID": "3", "STDOUT": "/runs/%A/%a/%j-%u-%x-%N-%8j.out"}
    text = record(**fields, Name="a%jb") + record(JobID="16", HetJobID="15", HetJobOffset="1", ArrayJobID="16")
    task, part = job_text.jobs(text, MARK)
    assert (task.array_job_id, task.array_tasks) == (12, "3") and (part.het_job_id, part.het_offset) == (15, 1)
    assert task.std_out == "/runs/12/3/14-alice-a%jb-%N-%8j.out"


def test_no_jobs() -> None:
    assert job_text.jobs("", MARK) == ()


def test_exclusions() -> None:
    assert job_text.exclusions(f"12{MARK}n[03-04]{MARK}\n13{MARK}{MARK}\n", MARK) == {12: "n[03-04]"}


TEXT = st.text().filter(lambda text: MARK not in text)


@given(name=TEXT, comment=TEXT, folder=TEXT, command=TEXT)
def test_what_a_user_writes_makes_up_no_other_job(name: str, comment: str, folder: str, command: str) -> None:
    evil = record(Name=name, Comment=comment, WorkDir=folder, STDOUT=folder, Command=command)
    jobs = job_text.jobs(evil + record(JobID="13", UserName="bob"), MARK)
    assert [(job.job_id, job.user, job.state, job.nodes) for job in jobs] == [
        (12, "alice", "RUNNING", "n[01-02,05]"),
        (13, "bob", "RUNNING", "n[01-02,05]"),
    ]
    assert jobs[0].name == name


@given(st.text())
def test_garbage_is_refused_or_no_job(text: str) -> None:
    if MARK not in text and not text.strip():
        assert job_text.jobs(text, MARK) == ()
    else:
        with pytest.raises(ValueError, match="fields"):
            job_text.jobs(text, MARK)


@given(st.lists(st.text().filter(lambda text: MARK not in text), min_size=len(RUNNING), max_size=len(RUNNING)))
def test_no_field_makes_it_fail(values: list[str]) -> None:
    assert len(job_text.jobs("".join(value + MARK for value in values) + "\n", MARK)) == 1


def test_marks_differ() -> None:
    assert job_text.new_mark() != job_text.new_mark()
