"""Arrays on a real Slurm: one sbatch, a job for each task, and nothing that happens to one touches another."""

import os
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from submitit.helpers import as_completed
from tests.real_lab import small, states, until

from trainmaster import TrainmasterJob, batch, map_array
from trainmaster.errors import SubmitRefused
from trainmaster.lab.cluster import LabSpec

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("lab")]

SIZE_MAX = 8
LAB = LabSpec(nodes=4, leaf=2, settings={"MaxArraySize": str(SIZE_MAX)})


def waits(index: int, folder: str) -> str:
    """Task 1 asks once for a requeue; all wait until the test lets them go."""
    Path(folder, f"{index}.{os.environ['TRAINMASTER_ATTEMPT']}").touch()
    if index == 1 and os.environ["TRAINMASTER_ATTEMPT"] == "0":
        os._exit(75)
    until((Path(folder) / "go").exists, "the test lets it go")
    return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"


def test_a_requeue_and_a_cancellation_of_one_task_touch_only_that_task(tmp_path):
    found = map_array(waits, range(4), [str(tmp_path)] * 4, spec=small(), folder=tmp_path / "jobs")
    until(lambda: (tmp_path / "1.1").exists(), "task 1 runs again")
    until(lambda: all((tmp_path / f"{index}.0").exists() for index in range(4)), "all have started")
    found[2].cancel()
    found[2].wait()
    (tmp_path / "go").touch()
    assert [found[index].result() for index in (0, 1, 3)] == [found[index].job_id for index in (0, 1, 3)]
    assert [job.state for job in found] == ["SUCCEEDED", "SUCCEEDED", "CANCELLED", "SUCCEEDED"]
    assert [states(job).count("REQUEUED") for job in found] == [0, 1, 0, 0]
    assert not any((tmp_path / f"{index}.1").exists() for index in (0, 2, 3))


def naps(seconds: float) -> tuple[float, float]:
    began_s = time.time()
    time.sleep(seconds)
    return began_s, time.time()


def test_no_more_run_at_a_time_than_were_allowed(tmp_path):
    found = map_array(naps, [0.5] * 4, spec=small(array_parallelism=1), folder=tmp_path)
    spans = sorted(job.result() for job in as_completed(found, poll_frequency=0.1))
    assert all(end_s <= next_s for (_, end_s), (next_s, _) in pairwise(spans))


def index_and_word(word: str) -> tuple[str, str]:
    return os.environ["SLURM_ARRAY_TASK_ID"], word


def test_what_does_not_fit_into_one_array_goes_into_several(tmp_path, lab):
    words = "abcdefghij"
    found = map_array(index_and_word, words, spec=small(), folder=tmp_path)
    numbers = dict.fromkeys(job.job_id.partition("_")[0] for job in found)
    assert len(numbers) == 2
    for job, word in zip(found, words, strict=True):
        assert job.result() == (job.job_id.partition("_")[2], word)


def test_indices_may_be_chosen_and_programs_and_callables_mixed(tmp_path):
    found = map_array(["echo", "hi"], ["a", "b"], spec=small(), folder=tmp_path, indices=[5, 2])
    assert [job.result() for job in found] == [None, None]
    assert [(job.job_id.partition("_")[2], job.stdout()) for job in found] == [("5", "hi a\n"), ("2", "hi b\n")]
    with batch(small(stderr_to_stdout=True, teardown=(f"touch {tmp_path}/torn",)), folder=tmp_path) as one:
        call = one.submit(index_and_word, "x")
        program = one.submit(["sh", "-c", "echo out; echo err >&2"])
    assert (call.result(), program.result()) == (("0", "x"), None)
    assert program.stdout() == "out\nerr\n" and program.stderr() is None
    until((tmp_path / "torn").exists, "the teardown lines have run")
    with pytest.raises(SubmitRefused, match=f"no index from {SIZE_MAX} on"):
        map_array(index_and_word, "ab", spec=small(), folder=tmp_path, indices=[1, SIZE_MAX])


def test_a_whole_array_is_cancelled_before_it_has_started(tmp_path):
    found = map_array(index_and_word, "abc", spec=small(sbatch={"hold": True}), folder=tmp_path)
    found[1].cancel()
    assert found[1].exception() is not None and found[1].state == "CANCELLED"
    assert not found[0].done() and found[0].state == "PENDING"
    again: TrainmasterJob[Any] = TrainmasterJob.from_id(found[2].job_id)
    assert (again.run_dir, again.state) == (found[2].run_dir, "PENDING")
    for job in (found[0], found[2]):
        job.cancel()
    assert [job.state for job in found if job.exception() is not None] == ["CANCELLED"] * 3
