"""The researcher's side on a real Slurm: submitting, waiting, results, logs, cancelling, and all that can be wrong."""

import asyncio
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import submitit
from submitit.core.utils import FailedJobError, UncompletedJobError
from tests.real_lab import as_in_a_terminal, small

from trainmaster.errors import SlurmMissing, SubmitRefused, UsageError
from trainmaster.launcher.follow.job import TrainmasterJob
from trainmaster.launcher.submit.executor import TrainmasterExecutor, submit
from trainmaster.launcher.submit.spec import JobSpec

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("lab")]

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]


def wait_for_state(job: TrainmasterJob[Any], *states: str, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if any(event.state in states for event in job.events()):
            return
        time.sleep(0.05)
    raise AssertionError(f"never {states}: {[event.state for event in job.events()]}")


def command(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "trainmaster", *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, **options)


# --- callables --------------------------------------------------------------------------------------------------------


def whoami(word: str, *, suffix: str = "") -> tuple[int, int, int, str]:
    environment = submitit.JobEnvironment()
    return environment.global_rank, environment.num_tasks, environment.node, word + suffix


def test_a_callable_gives_the_result_of_each_rank(tmp_path):
    job = submit(whoami, "a", spec=small(nodes=2, tasks_per_node=2), folder=tmp_path, suffix="b")
    assert job.results() == [(0, 4, 0, "ab"), (1, 4, 0, "ab"), (2, 4, 1, "ab"), (3, 4, 1, "ab")]
    assert job.done() and job.exception() is None and job.state == "SUCCEEDED"
    assert job.task(2).result() == (2, 4, 1, "ab")
    assert job.paths.submitted_pickle.exists() and job.task(3).paths.result_pickle.exists()


def fails_on_rank_1() -> None:
    if os.environ["RANK"] == "1":
        print("about to fail")
        raise LookupError("no such thing")
    time.sleep(60)


def test_what_a_callable_raises_is_shown_with_its_rank_and_log(tmp_path):
    job = submit(fails_on_rank_1, spec=small(tasks_per_node=2), folder=tmp_path)
    error = job.exception()
    assert isinstance(error, FailedJobError)
    for word in (
        "FAILED_USER",
        "first failing rank: 1",
        "LookupError: no such thing",
        "rank1.err",
        f"jobs show {job.job_id}",
    ):
        assert word in str(error)
    with pytest.raises(FailedJobError, match="no such thing"):
        job.results()
    assert job.task(1).stdout() == "about to fail\n"


def test_a_script_may_import_its_neighbours_wherever_it_is_started(tmp_path):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "neighbour.py").write_text("def double(x):\n    return 2 * x\n")
    script = tmp_path / "scripts" / "main.py"
    lines = ["from trainmaster import submit", "from neighbour import double", "print(submit(double, 21).result())"]
    script.write_text("\n".join(lines))
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "42\n", done.stderr


def twice(folder: str) -> str:
    attempt = os.environ["TRAINMASTER_ATTEMPT"]
    Path(folder, f"attempt{attempt}").touch()
    if attempt == "0":
        os._exit(75)  # please requeue
    return f"result of attempt {attempt}"


def test_a_result_is_that_of_the_last_attempt(tmp_path):
    job = submit(twice, str(tmp_path), spec=small(), folder=tmp_path / "jobs")
    wait_for_state(job, "REQUEUED")
    assert not job.done()
    assert job.result() == "result of attempt 1"
    assert (tmp_path / "attempt0").exists()


def test_awaiting(tmp_path):
    async def both() -> list[Any]:
        jobs = [submit(divmod, 7, number, spec=small(), folder=tmp_path) for number in (2, 3)]
        return await asyncio.gather(*(job.awaitable().result(poll_interval=0.1) for job in jobs))

    assert asyncio.run(both()) == [(3, 1), (2, 1)]


# --- programs ---------------------------------------------------------------------------------------------------------


def test_a_program_ends_with_none_and_its_output_is_there(tmp_path):
    program = "import os, sys; print(os.environ['RANK'], sys.argv[1]); print('err', file=sys.stderr)"
    job = submit([sys.executable, "-c", program], "word", spec=small(nodes=2), folder=tmp_path)
    assert job.result() is None
    assert [job.task(rank).stdout() for rank in (0, 1)] == ["0 word\n", "1 word\n"]
    assert job.task(0).stderr() == "err\n"


def test_a_program_that_fails_says_with_what(tmp_path):
    job = submit("sh -c 'echo broken >&2; exit 7'", spec=small(restarts_max=0), folder=tmp_path)
    error = job.exception()
    assert isinstance(error, UncompletedJobError)
    assert "exit code 7" in str(error)
    with pytest.raises(UncompletedJobError):
        job.result()


def test_setup_and_environment_reach_the_ranks(tmp_path):
    spec = small(env={"FROM_SPEC": "it's $HOME"}, setup=("export FROM_SETUP='two words'",))
    job = submit(["sh", "-c", 'printf "%s|%s" "$FROM_SPEC" "$FROM_SETUP"'], spec=spec, folder=tmp_path)
    job.result()
    assert job.stdout() == "it's $HOME|two words"


def test_a_setup_line_that_ends_the_script_is_an_infrastructure_failure_with_its_output(tmp_path):
    job = submit("true", spec=small(setup=("echo the module is gone", "exit 3")), folder=tmp_path)
    error = str(job.exception())
    assert job.state == "FAILED_INFRA"
    assert "the module is gone" in error and "Slurm says FAILED" in error


def test_odd_names_and_folders_survive_sbatch(tmp_path):
    folder = tmp_path / 'it\'s 50% "odd" [x]'
    name = 'it\'s "odd" \\ 100% $HOME `x` #1'
    job = submit("true", spec=small(name=name, sbatch={"comment": name}), folder=folder)
    assert job.result() is None
    assert (job.run_dir / "batch.out").exists()


# --- submitit's own ways ----------------------------------------------------------------------------------------------


def test_auto_executor(tmp_path):
    executor = submitit.AutoExecutor(folder=tmp_path / "%j", cluster="trainmaster")
    executor.update_parameters(
        nodes=2, tasks_per_node=1, timeout_min=10, mem_gb=1, name="auto", trainmaster_spares=1, trainmaster_sbatch={}
    )
    job = executor.submit(whoami, "x")
    assert isinstance(job, TrainmasterJob)
    assert [result[:2] for result in job.results()] == [(0, 2), (1, 2)]
    events = job.events()
    assert len(events[-1].nodes) == 2 and len(events[-1].spares) == 1
    assert (tmp_path / job.job_id).resolve() == job.run_dir
    with pytest.raises(NameError, match="sparse"):
        executor.update_parameters(trainmaster_sparse=1)


def test_arrays_and_batches(tmp_path):
    executor = TrainmasterExecutor(tmp_path, small())
    jobs = executor.map_array(divmod, [7, 9], [2, 4])
    with executor.batch():
        late = executor.submit(divmod, 5, 3)
    assert [job.result() for job in [*jobs, late]] == [(3, 1), (2, 1), (1, 2)]
    assert all(type(job) is TrainmasterJob for job in [*jobs, late])


def exports() -> tuple[int, int, bool]:
    found = submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
    same = os.environ["MASTER_ADDR"] == found.master_addr and os.environ["MASTER_PORT"] == str(found.master_port)
    return found.rank, found.world_size, same


def test_torch_distributed_environment(tmp_path):
    job = submit(exports, spec=small(nodes=2), folder=tmp_path)
    assert job.results() == [(0, 2, True), (1, 2, True)]


def submits(folder: str) -> list[Any]:
    job = submit(whoami, "inner", spec=JobSpec(nodes=2, time=5, mem="1G"), folder=folder)
    return job.results()


def test_a_rank_may_submit_a_job(tmp_path):
    job = submit(submits, str(tmp_path / "inner"), spec=small(), folder=tmp_path / "outer")
    assert job.result() == [(0, 2, 0, "inner"), (1, 2, 1, "inner")]


# --- from elsewhere ---------------------------------------------------------------------------------------------------


def test_a_job_is_picked_up_by_another_process(tmp_path):
    job = submit(whoami, "x", spec=small(nodes=2), folder=tmp_path)
    (tmp_path / "job.pkl").write_bytes(pickle.dumps(job))
    code = (
        "import pickle, pathlib, sys; from trainmaster import TrainmasterJob\n"
        "job = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())\n"
        "again = TrainmasterJob.from_id(sys.argv[2])\n"
        "print(len(job.results()), len(again.results()), again.state)"
    )
    argv = [sys.executable, "-c", code, str(tmp_path / "job.pkl"), job.job_id]
    # The function of a test module is not importable elsewhere; its results are plain tuples.
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "2 2 SUCCEEDED\n", done.stderr
    with pytest.raises(UsageError, match="could not find job 999999"):
        TrainmasterJob.from_id(999999)


# --- ending early -----------------------------------------------------------------------------------------------------


def test_cancelled_while_pending(tmp_path):
    job = submit(SLEEPER, spec=small(sbatch={"hold": True}), folder=tmp_path)
    assert job.state == "PENDING"
    done = command("jobs", "cancel", "--json", job.job_id)
    assert json.loads(done.stdout) == [{"job_id": int(job.job_id), "state": "CANCELLED"}], done.stderr
    assert job.done()
    assert "CANCELLED (user, by " in str(job.exception())


def test_cancelled_while_starting(tmp_path):
    job = submit(SLEEPER, spec=small(nodes=2), folder=tmp_path)
    wait_for_state(job, "STARTING")
    job.cancel()
    job.wait()
    assert job.state == "CANCELLED"


def test_cancelled_while_running(tmp_path):
    job = submit(SLEEPER, spec=small(nodes=2), folder=tmp_path)
    wait_for_state(job, "RUNNING")
    assert command("jobs", "cancel", "--dry-run", job.job_id).stdout.startswith(
        f"job {job.job_id}: RUNNING; would scancel"
    )
    assert not job.done()
    job.cancel()
    assert isinstance(job.exception(), UncompletedJobError)
    assert json.loads((job.run_dir / "cancel.json").read_text())["cause"] == "user"
    assert job.state == "CANCELLED"


def test_cancelled_by_a_plain_scancel_while_pending(tmp_path, lab):
    job = submit(SLEEPER, spec=small(sbatch={"hold": True}), folder=tmp_path)
    lab.run(["scancel", job.job_id])
    job.wait()  # nobody wrote the end; Slurm's word is found within LOOK_EVERY_S
    assert job.state == "CANCELLED"


# --- the shell --------------------------------------------------------------------------------------------------------


def test_submit_and_wait_from_the_shell(tmp_path):
    options = ["--time", "10m", "--mem", "1G", "--folder", tmp_path, "--wait"]
    good = command("submit", *options, "--json", "--", "sh", "-c", "exit 0")
    assert (good.returncode, json.loads(good.stdout)["state"]) == (0, "SUCCEEDED"), good.stderr
    bad = command("submit", *options, "--restarts-max", 0, "--", "sh", "-c", "echo why >&2; exit 9")
    assert bad.returncode == 1
    assert "FAILED_USER" in bad.stderr and "exit code 9" in bad.stderr


def test_ctrl_c_cancels_the_job_that_is_waited_for(tmp_path):
    argv = ["submit", "--time", "10", "--mem", "1G", "--folder", str(tmp_path), "--wait", "--json", "--", *SLEEPER]
    process = subprocess.Popen(
        [sys.executable, "-m", "trainmaster", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=as_in_a_terminal,
    )
    said = ""
    assert process.stderr is not None
    while "RUNNING" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert json.loads(stdout)["state"] == "CANCELLED"
    assert "Ctrl-C again leaves at once" in stderr


def test_list_show_and_logs(tmp_path):
    program = "import os; print('rank', os.environ['RANK'], 'cycle', os.environ['TRAINMASTER_CYCLE'], flush=True)\n"
    program += "raise SystemExit(3 if os.environ['TRAINMASTER_CYCLE'] == '0' and os.environ['RANK'] == '1' else 0)"
    job = submit([sys.executable, "-c", program], spec=small(nodes=2, name="life"), folder=tmp_path)
    job.wait()
    listed = json.loads(command("jobs", "list", "--json").stdout)[0]
    assert (listed["job_id"], listed["name"], listed["state"]) == (int(job.job_id), "life", "SUCCEEDED")
    shown = json.loads(command("jobs", "show", "--json", job.job_id).stdout)
    assert [(row["cycle"], row["state"], row["cause"]) for row in shown["cycles"]] == [
        (0, "RESTARTING", "rank_crash"),
        (1, "SUCCEEDED", "program"),
    ]
    assert shown["cycles"][1]["lost_s"] == shown["lost_s"] > 0
    assert "0.1" in command("jobs", "show", job.job_id).stdout
    assert command("jobs", "logs", job.job_id).stdout == "rank 0 cycle 1\n"
    assert command("jobs", "logs", "--rank", 1, "--cycle", 0, job.job_id).stdout == "rank 1 cycle 0\n"
    assert command("jobs", "logs", "-f", job.job_id).stdout == "rank 0 cycle 1\n"
    assert "there are (attempt.cycle): 0.0, 0.1" in command("jobs", "logs", "--cycle", 5, job.job_id).stderr


def test_following_a_log_goes_on_into_the_next_cycle_and_ends_with_the_job(tmp_path):
    program = "import os, time; print('cycle', os.environ['TRAINMASTER_CYCLE'], flush=True); time.sleep(2)\n"
    program += "raise SystemExit(3 if os.environ['TRAINMASTER_CYCLE'] == '0' else 0)"
    job = submit([sys.executable, "-c", program], spec=small(), folder=tmp_path)
    wait_for_state(job, "RUNNING")
    said = command("jobs", "logs", "-f", job.job_id).stdout
    assert said == "cycle 0\n--- attempt 0, cycle 1 ---\ncycle 1\n"
    assert job.done()


def test_a_hundred_megabytes_on_one_line_are_copied_in_small_pieces(tmp_path):
    job = submit(
        [sys.executable, "-c", "import sys; sys.stdout.write('x' * 100_000_000)"], spec=small(), folder=tmp_path
    )
    job.wait()
    argv = ["prlimit", f"--data={48 * 1024**2}", sys.executable, "-m", "trainmaster", "jobs", "logs", job.job_id]
    with (tmp_path / "copy").open("wb") as copy:
        subprocess.run(argv, stdout=copy, check=True, timeout=120)
    assert (tmp_path / "copy").stat().st_size == 100_000_000


# --- bad input --------------------------------------------------------------------------------------------------------


def folders(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_an_unknown_partition_names_those_that_exist(tmp_path):
    with pytest.raises(SubmitRefused) as caught:
        submit("true", spec=JobSpec(partition="no-such"), folder=tmp_path)
    for word in ("no partition 'no-such'", "batch (4 nodes)", "sbatch: error: invalid partition specified: no-such"):
        assert word in str(caught.value)
    assert folders(tmp_path) == []


def test_more_nodes_than_there_are(tmp_path):
    with pytest.raises(SubmitRefused, match=r"wants 5 nodes \(4 and 1 spare\), but partition 'batch' has 4"):
        submit("true", spec=JobSpec(nodes=4, spares=1), folder=tmp_path)
    assert folders(tmp_path) == []


def test_more_time_than_the_partition_allows(tmp_path):
    with pytest.raises(SubmitRefused, match="wants 30-00:00:00, but partition 'batch' allows"):
        submit("true", spec=JobSpec(time="30d"), folder=tmp_path)


def test_more_of_a_node_than_it_has(tmp_path):
    with pytest.raises(SubmitRefused, match="at most 8 CPUs"):
        submit("true", spec=JobSpec(mem="99T"), folder=tmp_path)


def test_a_machine_without_slurm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmMissing, match="trainmaster lab up"):
        submit([sys.executable, "-c", "pass"], folder=tmp_path)
    assert folders(tmp_path) == []


def test_a_machine_that_knows_of_no_cluster(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", "")
    monkeypatch.delenv("SLURM_CONF")
    if Path("/etc/slurm/slurm.conf").exists():
        pytest.skip("this machine belongs to a cluster")
    with pytest.raises(SlurmMissing, match="SLURM_CONF"):
        submit([sys.executable, "-c", "pass"], folder=tmp_path)


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root to mount a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine does not let root mount")
    try:
        with pytest.raises(UsageError, match="No space left on device"):
            submit(len, b"x" * 1_000_000, folder=disk)
        assert folders(disk) == []
    finally:
        subprocess.run(["umount", disk], check=True)


# --- slurmctld away (last, since they stop it) ------------------------------------------------------------------------


def test_the_end_is_seen_while_slurmctld_is_down(tmp_path, lab):
    stop = tmp_path / "stop"
    program = f"import pathlib, time\nwhile not pathlib.Path({str(stop)!r}).exists(): time.sleep(0.1)"
    job = submit([sys.executable, "-c", program], spec=small(), folder=tmp_path / "jobs")
    wait_for_state(job, "RUNNING")
    again = TrainmasterJob.from_id(job.job_id)
    lab.stop_process("slurmctld")
    try:
        assert not again.done()
        stop.touch()
        again.wait()
        assert again.exception() is None
    finally:
        lab.start_slurmctld()


def test_a_slurmctld_that_comes_back_gets_the_job(tmp_path, lab):
    lab.stop_process("slurmctld")
    starter = threading.Timer(2.0, lab.start_slurmctld)
    starter.start()
    try:
        job = submit("true", spec=small(), folder=tmp_path)
    finally:
        starter.join()
    assert job.result() is None
