"""Jobs as squeue of Debian 13 and of Debian unstable tells them, read by what reads Debian 12's. Slow, like its sister.

With cloud nodes that never come, since no slurmd runs: what is held and what waits is all there is.
"""

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import newer_slurm

from trainmaster.slurm import job_text
from trainmaster.slurm.values import Job

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

FALSE = "x UserId=bob(7)\nJobId=99 JobName=x UserId=bob(7) JobState=RUNNING"


@pytest.fixture(scope="module", params=["trixie", "sid"])
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield from newer_slurm.root_of(request.param, tmp_path_factory)


@pytest.fixture(scope="module")
def jobs(root: Path) -> dict[int, Job]:
    mark = job_text.new_mark()
    name = shlex.quote(FALSE)
    every = "squeue --noheader --all --noconvert --states=all"
    said = newer_slurm.ask(
        root,
        nodes="n[01-16]",
        settings="",
        files={},
        commands=(
            f"sbatch --hold --job-name={name} --comment={name} --nice=7 -N2 --output=/r/%A/%j-%u.out --wrap=true",
            "sbatch --hold --array=1-200%4 --requeue --no-kill --exclude=n[03-04] --output=/r/%A/%a.out --wrap=true",
            "sbatch --begin=now+1hour --no-requeue -N1 : -N2 --wrap=true",
            "scancel --quiet 1",
            f"env SLURM_BITSTR_LEN=0 {every} --Format {job_text.asked(mark)}",
            f"{every} --format {job_text.asked_exclusions(mark)}",
            f"{every} --jobs 77 --Format {job_text.asked(mark)}",
        ),
    )
    assert said.runs, said.log
    assert "Invalid job format specification" not in said.outputs[4], said.outputs[4]
    assert job_text.exclusions(said.outputs[5], mark) == {2: "n[03-04]"}
    assert "Invalid job id" in said.outputs[6]
    return {job.job_id: job for job in job_text.jobs(said.outputs[4], mark)}


def test_what_a_user_writes_makes_up_no_job(jobs: dict[int, Job]) -> None:
    assert sorted(jobs) == [1, 2, 3, 4] and {job.user for job in jobs.values()} == {"root"}
    job = jobs[1]
    assert (job.name, job.comment, job.state, job.nodes) == (FALSE, FALSE, "CANCELLED", "")
    assert (job.nice, job.node_count, job.std_out, job.work_dir) == (7, 2, "/r/1/1-root.out", "/")
    assert not job.active and job.submit_time is not None and job.restarts == 0


def test_arrays_and_parts(jobs: dict[int, Job]) -> None:
    array, first, second = jobs[2], jobs[3], jobs[4]
    assert (array.array_job_id, array.array_tasks, array.reason) == (2, "1-200%4", "JobHeldUser")
    assert array.requeue and not first.requeue and array.priority == 0 and first.array_job_id == 0
    assert [(one.het_job_id, one.het_offset, one.node_count) for one in (first, second)] == [(3, 0, 1), (3, 1, 2)]
    assert first.state == "PENDING" and "BeginTime" in first.reason and first.active
    assert first.eligible_time is not None and first.submit_time is not None
    assert first.eligible_time > first.submit_time + 3000
