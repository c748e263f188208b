"""A pytest plug-in that runs submitit's own test suite with trainmaster's classes in place of submitit's.

    SUITE=mocked python -m pytest -p plugin --pyargs submitit

baseline: submitit as it is, as if trainmaster were not installed. Every test that passes so is to pass with ours.
mocked:   SlurmExecutor and SlurmJob are ours. Slurm is the suite's own mock, reached through our door to Slurm
          (`MockedSlurm`), and what runs on the node is what the tests themselves call, submitit's `process_job`.
lab:      LocalExecutor and LocalJob are ours, on the real cluster that SLURM_CONF names.

The tests look classes up as attributes of their modules when they are called, so replacing the attributes is enough.
SUITE_REPORT names the file that gets one line a test: its outcome and its name.
"""

import asyncio
import inspect
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import submitit.core.plugins
import submitit.core.submission
import submitit.local.local
import submitit.slurm.slurm
from submitit.core.utils import pickle_load

from trainmaster.errors import SlurmMissing
from trainmaster.launcher import array_layout, record
from trainmaster.launcher.follow import job
from trainmaster.launcher.follow.job import TrainmasterJob
from trainmaster.launcher.follow.queue import Queue
from trainmaster.launcher.submit import executor, submission
from trainmaster.slurm.values import Job

MODE = os.environ.get("SUITE", "baseline")


class MockedSlurm:
    """Our door to Slurm, with the suite's mock of sbatch, sacct and scancel behind it."""

    def submit(self, script_text: str, *, args: Sequence[str] = ()) -> int:
        # As submitit does it: the mock reads the script from a file, and answers as sbatch does for people.
        with tempfile.NamedTemporaryFile("w", suffix=".sh") as script:
            script.write(script_text)
            script.flush()
            answer = subprocess.check_output(["sbatch", script.name])
        return int(SlurmExecutor._get_job_id_from_submission_command(answer))

    def job(self, job_id: int | str) -> Job | None:
        return next((job for job in self.jobs() if str(job.job_id) == str(job_id)), None)

    def jobs(self, *, user: str | None = None) -> tuple[Job, ...]:
        if subprocess.check_output is _real_check_output:
            raise SlurmMissing("outside of the mock there is no Slurm")
        text = subprocess.check_output(["sacct"]).decode()
        lines = re.findall(r"^(\d+(?:_\d+)?)\|(\w+)$", text, re.MULTILINE)
        jobs = []
        for job_id, state in lines:
            number, _, task = job_id.partition("_")
            jobs.append(Job(job_id=int(number), state=state, array_job_id=int(number) if task else 0, array_tasks=task))
        return tuple(jobs)

    def tasks(self, job_id: int) -> tuple[Job, ...]:
        return tuple(job for job in self.jobs() if job.array_job_id == job_id)

    def array_size_max(self) -> int:
        return 1001

    def cancel(self, job_id: int | str, *, signal: str | None = None) -> None:
        subprocess.check_call(["scancel", str(job_id)])

    def signal(self, job_id: int | str, name: str) -> None:
        subprocess.check_call(["scancel", str(job_id), "--signal", name])

    def __getattr__(self, name: str) -> Any:
        def refuse(*args: Any, **values: Any) -> Any:
            raise SlurmMissing(f"the mock does not know {name}")

        return refuse


_real_check_output = subprocess.check_output


class SlurmExecutor(executor.TrainmasterExecutor):
    """Ours under the name `slurm`, chosen by AutoExecutor wherever submitit's would be."""

    @classmethod
    def name(cls) -> str:
        return "slurm"

    @classmethod
    def affinity(cls) -> int:
        return 2 if executor.shutil.which("srun") else -1

    def _client(self, spec=None) -> Any:
        return MockedSlurm()

    def _send(self, made: submission.Draft) -> submission.Submission:
        sent = super()._send(made)
        tasks = array_layout.indices_of(sent.tasks) if sent.tasks else ()
        for run_dir in [array_layout.unfold(sent.run_dir, task, sent.job_id) for task in tasks] or [sent.run_dir]:
            note(run_dir, sent.job_id, "RUNNING")  # what the mock says of every job at once
            (run_dir / "attempt0.0").mkdir()
            (run_dir / "batch.out").touch()
        return sent


def note(run_dir: Path, job_id: int | str, state: str, **detail: Any) -> None:
    """Write what our supervisor would write."""
    event = record.Event(epoch_s=time.time(), job_id=job_id, attempt=0, cycle=0, state=state, detail=detail)
    record.append(run_dir, event)


class LabExecutor(executor.TrainmasterExecutor):
    """Ours under the name `local`."""

    @classmethod
    def name(cls) -> str:
        return "local"


def process_job(folder: Path | str) -> None:
    """What a node does in these tests: submitit's own `process_job`, and the record that our supervisor would write."""
    run_dir, job_id = Path(folder), os.environ["SLURM_JOB_ID"]
    if not (run_dir / "plan.json").exists():
        _process_job(folder)  # of a job that the suite made itself
        return
    (run_dir / f"{job_id}_submitted.pkl").symlink_to("submitted.pkl")
    try:
        _process_job(folder)
    finally:
        result = run_dir / "attempt0.0" / "rank0.result.pkl"
        (run_dir / f"{job_id}_0_result.pkl").rename(result)
        outcome, value = pickle_load(result)
        if outcome == "success":
            note(run_dir, job_id, "SUCCEEDED")
        else:
            note(run_dir, job_id, "FAILED_USER", failure={"rank": 0, "node": "n01", "exit_code": 1, "traceback": value})


_process_job = submitit.core.submission.process_job


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "asyncio: run in an event loop")
    # As if trainmaster were not installed: in the suite it takes submitit's place, it does not stand beside it.
    if MODE == "plugged-in":
        return
    entry_points = submitit.core.plugins._iter_submitit_entrypoints
    submitit.core.plugins._iter_submitit_entrypoints = lambda: [
        point for point in entry_points() if not point.value.startswith("trainmaster.")
    ]
    if MODE == "mocked":
        submitit.slurm.slurm.SlurmExecutor = SlurmExecutor
        submitit.slurm.slurm.SlurmJob = TrainmasterJob
        submitit.core.submission.process_job = process_job
        job.queue_of = lambda conf: Queue(MockedSlurm(), start=lambda work: work())
    elif MODE == "lab":
        submitit.local.local.LocalExecutor = LabExecutor
        submitit.local.local.LocalJob = TrainmasterJob


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if os.environ.get("SUITE_REPORT") and (report.when == "call" or report.outcome != "passed"):
        outcome = "xfailed" if hasattr(report, "wasxfail") else report.outcome
        with Path(os.environ["SUITE_REPORT"]).open("a") as stream:
            module = item.module.__name__  # type: ignore[attr-defined]
            stream.write(f"{outcome} {module}::{item.name!r}\n")
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run coroutine tests, for which submitit expects a plug-in of pytest."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True
