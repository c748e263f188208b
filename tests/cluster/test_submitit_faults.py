"""The twelve faults that were found in submitit 1.5.4, each shown not to be ours. Their numbers are of no meaning."""

import ctypes
import os
import time
from pathlib import Path
from typing import Any

import pytest
import submitit
from submitit.core.utils import DelayedSubmission, UncompletedJobError
from submitit.helpers import Checkpointable
from tests.real_lab import small, states, until

from trainmaster.launcher import plan, record
from trainmaster.launcher.follow.job import TrainmasterJob
from trainmaster.launcher.follow.queue import Queue
from trainmaster.launcher.follow.watch import Watch
from trainmaster.launcher.rank.rank_env import port_range
from trainmaster.launcher.submit.executor import TrainmasterExecutor, map_array, submit

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("lab")]


class Saves(Checkpointable):
    """Marks that it runs, and waits; its checkpoint ends with what it was told."""

    def __init__(self, marks: Path) -> None:
        self.marks = marks

    def __call__(self, word: str = "") -> str:
        if word:
            return f"{word} in attempt {os.environ['TRAINMASTER_ATTEMPT']}"
        (self.marks / "running").touch()
        self.work()
        return "never asked"

    def work(self) -> None:
        time.sleep(120)

    def checkpoint(self, word: str = "") -> DelayedSubmission:
        return DelayedSubmission(self, "saved")


def interrupted(function: Saves, tmp_path: Path, **spec: Any) -> TrainmasterJob[Any]:
    """A job that was asked for a checkpoint while it ran."""
    job = submit(function, spec=small(**spec), folder=tmp_path / "jobs")
    until((function.marks / "running").exists, "the function runs")
    job._interrupt()
    return job


def test_fault_01_a_checkpoint_that_was_cut_short_does_not_stop_the_next(tmp_path):
    function = Saves(tmp_path)
    job = submit(function, spec=small(), folder=tmp_path / "jobs")
    for leftover in ("submitted.pkl.save_tmp", ".submitted.pkl.1"):
        (job.run_dir / leftover).write_bytes(b"half of it")
    until((tmp_path / "running").exists, "the function runs")
    job._interrupt()
    assert job.result() == "saved in attempt 1"


def test_fault_02_a_signal_in_a_short_job_is_no_timeout(tmp_path):
    # With a limit of up to ten minutes submitit takes every signal for a timeout; its default is five.
    job = interrupted(Saves(tmp_path), tmp_path, time=5)
    assert job.result() == "saved in attempt 1"
    (requeued,) = [event for event in job.events() if event.state == "REQUEUED"]
    assert requeued.cause == "requested"


def whoami(word: str) -> tuple[str, str, int]:
    environment = submitit.JobEnvironment()
    return word, environment.job_id, environment.array_task_count


def test_fault_03_arrays_keep_class_script_limits_and_results(tmp_path):
    executor = TrainmasterExecutor(tmp_path, small(setup=("export MARK=1",)), max_pickle_size_gb=1e-5)
    found = executor.map_array(whoami, ["a", "b", "c"])
    assert {type(job) for job in found} == {TrainmasterJob}
    script = found[2].paths.submission_file.read_text()
    assert "launcher.script.array_task" in script and "export MARK=1" in script
    assert [job.result() for job in found] == [
        (word, f"{found[0].job_id.partition('_')[0]}_{index}", 3) for index, word in enumerate("abc")
    ]
    with pytest.raises(RuntimeError, match="max_pickle_size_gb"):
        executor.map_array(whoami, ["x" * 9000, "y" * 9000])


def first_attempt_is_no_result(folder: str) -> str:
    attempt, rank = os.environ["TRAINMASTER_ATTEMPT"], os.environ["RANK"]
    if attempt == "0" and rank == "0":
        until(lambda: any(Path(folder).rglob("rank1.result.pkl")), "rank 1 has left a result")
        os._exit(75)  # please requeue
    if attempt == "1":
        until((Path(folder) / "go on").exists, "the test allows it")
    return f"rank {rank} in attempt {attempt}"


def test_fault_04_a_result_of_an_earlier_attempt_is_no_result(tmp_path):
    job = submit(first_attempt_is_no_result, str(tmp_path), spec=small(tasks_per_node=2), folder=tmp_path / "jobs")
    until(lambda: "REQUEUED" in states(job), "it is requeued")
    assert any(job.run_dir.rglob("rank1.result.pkl"))
    until(lambda: not (job.done() or job.task(1).done()) and states(job)[-1] == "RUNNING", "it runs again, not done")
    (tmp_path / "go on").touch()
    assert job.results() == ["rank 0 in attempt 1", "rank 1 in attempt 1"]


def test_fault_05_without_sacct_a_job_that_died_without_a_word_is_known_to_be_over(tmp_path):
    job = submit(whoami, "x", spec=small(python="/bin/false"), folder=tmp_path)
    error = job.exception()
    assert isinstance(error, UncompletedJobError)
    assert job.state == "FAILED_INFRA" and "Slurm says FAILED" in str(error)


@pytest.mark.parametrize(
    ("state", "over"),
    [
        *((state, False) for state in ("SUSPENDED", "CONFIGURING", "RESIZING", "STOPPED", "SIGNALING", "STAGE_OUT")),
        *((state, False) for state in ("REQUEUE_HOLD", "SPECIAL_EXIT", "SOMETHING_NEW", "REQUEUED", "COMPLETING")),
        *((state, True) for state in ("PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "OUT_OF_MEMORY", "DEADLINE", "TIMEOUT")),
    ],
)
def test_fault_06_a_state_of_slurm_counts_as_what_it_is(tmp_path, state, over):
    # Here, since a rank that imports this module has only the checkout's root to import from.
    from fakes.clock import FakeClock
    from fakes.slurm import FakeSlurm

    run_dir = tmp_path / "run"
    run_dir.mkdir()
    record.append(run_dir, record.Event(epoch_s=0.0, job_id=12, attempt=0, cycle=0, state="RUNNING"))
    slurm, clock = FakeSlurm(), FakeClock()
    slurm.put(12, state, std_out=str(run_dir / "batch.out"))
    watch = Watch(run_dir, 12, Queue(slurm, clock=clock, start=lambda work: work()), clock=clock)
    assert (watch.wait(timeout_s=60.0) is not None) == over


def test_fault_07_the_end_of_a_wide_job_costs_no_wait_for_each_rank(tmp_path, monkeypatch):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    plan.write(run_dir, plan.Plan(uid="run", name="wide", run_dir=str(run_dir), python="p", nodes=64))
    record.append(run_dir, record.Event(epoch_s=0.0, job_id=12, attempt=0, cycle=0, state="FAILED_INFRA", ranks=64))
    job: TrainmasterJob[Any] = TrainmasterJob(tmp_path, "12", range(64), run_dir=run_dir)

    def no_sleep(seconds: float) -> None:
        raise AssertionError(f"it sleeps {seconds} s")

    monkeypatch.setattr(time, "sleep", no_sleep)
    assert "FAILED_INFRA" in str(job.exception())
    assert all("FAILED_INFRA" in str(job.task(rank).exception()) for rank in range(64))


class LoadsSlowly(Saves):
    """Takes its time to be unpickled the first time, as a function that imports much does."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if os.environ.get("TRAINMASTER_ATTEMPT") == "0":
            (self.marks / "running").touch()
            until((self.marks / "asked").exists, "the signal was sent")


def test_fault_08_a_signal_while_the_call_is_loaded_is_remembered(tmp_path):
    job = interrupted(LoadsSlowly(tmp_path), tmp_path)
    until(
        lambda: "asked for a checkpoint" in (job.run_dir / "batch.out").read_text(), "the supervisor has handed it on"
    )
    time.sleep(0.5)
    (tmp_path / "asked").touch()
    assert job.result() == "saved in attempt 1"


class Hangs(Saves):
    """Hangs in a C call that no signal ends."""

    def work(self) -> None:
        mutex = ctypes.create_string_buffer(64)
        library = ctypes.CDLL(None)
        for _ in range(2):
            library.pthread_mutex_lock(mutex)


def test_fault_09_a_rank_that_hangs_in_a_c_call_is_saved_all_the_same(tmp_path):
    assert interrupted(Hangs(tmp_path), tmp_path).result() == "saved in attempt 1"


class TellsItsPort(Saves):
    """Its result is the port of each attempt."""

    def __call__(self, word: str = "") -> str:
        port = os.environ["MASTER_PORT"]
        if word:
            return f"{word} {port}"
        (self.marks / "running").write_text(port)
        self.work()
        return ""

    def checkpoint(self, word: str = "") -> DelayedSubmission:
        return DelayedSubmission(self, os.environ["MASTER_PORT"])


def test_fault_10_ports_lie_outside_the_ephemeral_range_and_change_with_each_attempt(tmp_path):
    before, after = map(int, interrupted(TellsItsPort(tmp_path), tmp_path).result().split())
    lowest, highest = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    allowed = port_range(lowest, highest)
    assert before in allowed and after in allowed and before != after


def test_fault_11_the_warning_reaches_the_batch_step_with_and_without_srun(tmp_path):
    executor = TrainmasterExecutor(tmp_path / "jobs", small())
    executor.update_parameters(use_srun=False, time=10)
    function = Saves(tmp_path)
    job = executor.submit(function)
    assert "#SBATCH --signal=B:USR2@90" in job.paths.submission_file.read_text()
    until((tmp_path / "running").exists, "the function runs")
    job._interrupt(timeout=True)
    assert job.result() == "saved in attempt 1"


def about_the_job(_: int) -> tuple[str, str, int, int, int, str, list[str]]:
    environment = submitit.JobEnvironment()
    array, index = environment.array_job_id, environment.array_task_id
    assert environment.job_id == f"{array}_{index}"
    if environment.attempt == 0:
        os._exit(75)
    role = environment.role
    return (
        *("array", str(index)),
        *(environment.array_task_count, environment.attempt, environment.cycle, role, list(environment.hostnames)[1:]),
    )


def test_fault_12_the_environment_knows_of_attempts_cycles_roles_and_the_array(tmp_path):
    found = map_array(about_the_job, range(2), spec=small(nodes=2), folder=tmp_path)
    for index, job in enumerate(found):
        for result in job.results():
            assert result[:6] == ("array", str(index), 2, 1, 0, "default")
            assert len(result[6]) == 1
