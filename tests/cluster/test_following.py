"""Following a job on a real Slurm: how it ended and by whom, its logs and its life, attaching, requeueing, cleaning."""

import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.real_lab import until

import trainmaster
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher import record
from trainmaster.launcher.follow.job import TrainmasterJob
from trainmaster.launcher.follow.queue import queue_of
from trainmaster.launcher.submit.executor import submit
from trainmaster.launcher.submit.spec import JobSpec

pytestmark = pytest.mark.cluster

PROGRAMS = Path(__file__).parents[1] / "programs"
SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
CGROUP = """CgroupPlugin=cgroup/v1
CgroupMountpoint=/sys/fs/cgroup
CgroupAutomount=no
ConstrainRAMSpace=yes
"""


def can_limit_memory() -> bool:
    """Whether slurmd can give a step a memory limit here: root, and a memory cgroup of the first version."""
    return os.geteuid() == 0 and os.access("/sys/fs/cgroup/memory/memory.limit_in_bytes", os.R_OK)


@pytest.fixture(scope="module")
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this module's list of jobs lies."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def lab(state_home: Path) -> Iterator[Lab]:
    settings = {"batch.PreemptMode": "CANCEL", "batch.GraceTime": "1"}
    if can_limit_memory():
        settings["TaskPlugin"] = "task/cgroup"
    with up(LabSpec(nodes=4, leaf=2, accounting=True, settings=settings)) as lab, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(lab.conf))
        patch.setenv("XDG_STATE_HOME", str(state_home))
        if can_limit_memory():
            (lab.folder / "cgroup.conf").write_text(CGROUP)
            for node in lab.node_names:
                lab.stop_process("slurmd", node)
                lab.start_slurmd(node)
            lab.wait_idle()
        # What this process waits for silently is found in 2 s instead of 15; the commands below keep to 15.
        queue_of(str(lab.conf)).every_s = 2.0
        yield lab


@pytest.fixture(scope="module")
def overdue(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> TrainmasterJob[Any]:
    """A job whose time is up; slurmctld looks for such jobs every half minute."""
    spec = small(checkpoint_signal_s=0, sbatch={"nodelist": "n01"})
    job = submit(SLEEPER, spec=spec, folder=tmp_path_factory.mktemp("overdue"))
    in_state(job, "RUNNING")
    lab.run(["scontrol", "update", f"JobId={job.job_id}", "EndTime=now+1"])
    return job


@pytest.fixture(autouse=True)
def started_first(
    overdue: TrainmasterJob[Any], own_state_home: None, state_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its half minute passes while the other tests run, and all of them share one list of jobs."""
    monkeypatch.setenv("XDG_STATE_HOME", str(state_home))


def small(**values: Any) -> JobSpec:
    return JobSpec(**({"time": 10, "mem": "1G", "stop_grace_s": 0.5} | values))


def in_state(job: TrainmasterJob[Any], state: str) -> None:
    until(lambda: any(event.state == state for event in job.events()), f"{state}; {states(job)}")


def states(job: TrainmasterJob[Any]) -> list[tuple[str, str | None]]:
    return [(event.state, event.cause) for event in job.events()]


def command(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "trainmaster", "jobs", *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, **options)


def show(job: TrainmasterJob[Any]) -> dict[str, Any]:
    done = command("show", "--json", job.job_id)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# --- end states -------------------------------------------------------------------------------------------------------


def test_cancelled_by_us_says_who_and_why(tmp_path, lab):
    job = submit(SLEEPER, spec=small(), folder=tmp_path)
    in_state(job, "RUNNING")
    assert command("cancel", "--reason", "wrong data", job.job_id).stdout == f"job {job.job_id}: CANCELLED\n"
    shown = show(job)
    assert (shown["state"], shown["cancelled_by"]) == ("CANCELLED", os.environ.get("USER", "root"))
    assert "'wrong data'" in shown["cycles"][-1]["why"]
    # "it had ended before", said the next one of a job that somebody had put back with Slurm's own command.
    until(lambda: slurms_word(lab, job) == "CANCELLED", "Slurm has let it go")
    lab.run(["scontrol", "requeuehold", job.job_id])
    assert command("cancel", job.job_id).stdout == f"job {job.job_id}: CANCELLED\n"
    assert slurms_word(lab, job) == "CANCELLED"
    assert command("cancel", job.job_id).stdout == f"job {job.job_id}: CANCELLED; it had ended before\n"


def slurms_word(lab: Lab, job: TrainmasterJob[Any]) -> str:
    text = lab.run(["scontrol", "show", "job", job.job_id]).stdout
    return text.partition("JobState=")[2].split()[0]


def test_cancelled_by_scancel_is_told_from_the_accounts(lab, tmp_path):
    waiting = submit(SLEEPER, spec=small(sbatch={"hold": True}), folder=tmp_path)
    running = submit(SLEEPER, spec=small(), folder=tmp_path)
    in_state(running, "RUNNING")
    lab.run(["scancel", waiting.job_id, running.job_id])
    running.wait()
    assert states(running)[-1] == ("CANCELLED", "user")
    assert "REQUEUED" not in [state for state, _ in states(running)]
    assert running.events()[-1].detail["cancelled_by"] == "not by trainmaster"
    until(lambda: show(running)["cancelled_by"] == "root", "slurmdbd says who it was")
    waiting.wait()
    assert waiting.state == "CANCELLED"
    until(lambda: show(waiting)["cancelled_by"] == "root", "slurmdbd says who it was")


def eats(megabytes: int) -> int:
    import resource

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0
    return len(bytearray(megabytes * 1_000_000))


@pytest.mark.skipif(not can_limit_memory(), reason="slurmd cannot limit a step's memory here")
def test_a_rank_that_memory_killed_ends_out_of_memory(tmp_path):
    job = submit(eats, 2000, spec=small(mem="300M", no_progress_max=2, backoff_s=0.1), folder=tmp_path)
    error = job.exception()
    assert states(job)[-1] == ("OUT_OF_MEMORY", "no_progress"), states(job)
    assert ("RESTARTING", "out_of_memory") in states(job)
    assert "the kernel killed it for want of memory" in str(error) and "SIGKILL" in str(error)


def test_a_rank_that_was_killed_by_hand_does_not(tmp_path):
    killer = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    job = submit(killer, spec=small(no_progress_max=1), folder=tmp_path)
    assert job.exception() is not None
    assert states(job)[-1] == ("NO_PROGRESS", "no_progress"), states(job)


@pytest.mark.skipif(not can_limit_memory(), reason="slurmd cannot limit a step's memory here")
def test_a_job_whose_setup_memory_killed_is_out_of_memory_by_slurms_word(tmp_path):
    hungry = f"{sys.executable} -c 'x = bytearray(2_000_000_000)' || exit 9"
    job = submit("true", spec=small(mem="300M", setup=(hungry,)), folder=tmp_path)
    job.wait()
    assert job.state == "OUT_OF_MEMORY", job.events()
    assert job.events()[-1].detail["slurm_state"] == "OUT_OF_MEMORY"


def test_preempted_for_good(lab, tmp_path):
    job = submit(SLEEPER, spec=small(requeues_max=0, exclusive=True, sbatch={"nodelist": "n04"}), folder=tmp_path)
    in_state(job, "RUNNING")
    sleeper = "#!/bin/sh\nsleep 300\n"
    sbatch = ["sbatch", "--parsable", "--partition=high", "--nodelist=n04", "--exclusive", "--output=/dev/null"]
    other = lab.run(sbatch, input_text=sleeper).stdout.strip()
    try:
        job.wait()
    finally:
        lab.run(["scancel", other])
    assert job.state == "PREEMPTED", states(job)


# --- following --------------------------------------------------------------------------------------------------------

STEPPER = """
import os, signal, sys, time
import trainmaster
asked = []
signal.signal(signal.SIGUSR2, lambda *_: asked.append(1))
os.environ["SET_LATER"] = "no"
for number in range(6000):
    print(f"step {number} of rank {os.environ['RANK']} in attempt {os.environ['TRAINMASTER_ATTEMPT']}", flush=True)
    trainmaster.step(number)
    time.sleep(0.05)
    if asked:
        sys.exit(75)
    if os.path.exists("stop"):
        break
"""


@pytest.fixture(scope="module")
def stepper(lab: Lab, overdue: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainmasterJob[Any]]:
    """A job of four ranks on two nodes, with a spare, that runs until it is told to stop."""
    folder = tmp_path_factory.mktemp("stepper")
    script = folder / "train.py"
    script.write_text(STEPPER)
    before = Path.cwd()
    os.chdir(folder)
    try:
        spec = small(nodes=2, spares=1, tasks_per_node=2, env={"MINE": "yes"}, name="stepper")
        job = submit([sys.executable, str(script)], spec=spec, folder=folder / "jobs")
    finally:
        os.chdir(before)
    yield job
    job.cancel(check=False)


def test_attach_runs_a_command_as_a_rank_would(stepper):
    in_state(stepper, "PROGRESS")
    code = "import os; print(*(os.environ.get(k) for k in ('RANK','MINE','SLURMD_NODENAME','SET_LATER')), os.getcwd())"
    done = command("attach", stepper.job_id, "--rank", "3", "--", sys.executable, "-c", code)
    folder = stepper.run_dir.parents[1]
    assert done.stdout == f"3 yes {stepper.events()[-1].nodes[1]} None {folder}\n", done.stderr
    spare = stepper.events()[-1].spares[0]
    assert (
        command("attach", "--node", spare, stepper.job_id, "--", "printenv", "SLURMD_NODENAME").stdout == f"{spare}\n"
    )
    assert "its nodes are" in command("attach", "--node", "n99", stepper.job_id).stderr
    assert command("attach", stepper.job_id, "--", "sh", "-c", "exit 7").returncode != 0
    pid = int(command("attach", stepper.job_id, "--rank", "1", "--", "printenv", "TRAINMASTER_RANK_PID").stdout)
    assert b"train.py" in Path(f"/proc/{pid}/cmdline").read_bytes() or pid > 0


def test_attach_from_a_terminal_gives_one(stepper):
    in_state(stepper, "PROGRESS")
    argv = [sys.executable, "-m", "trainmaster", "jobs", "attach", stepper.job_id, "--", "sh", "-c", "tty; echo end"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(argv[0], argv)
    said = b""
    deadline = time.monotonic() + 60
    while b"end" not in said and time.monotonic() < deadline:
        try:
            said += os.read(terminal, 4096)
        except OSError:
            break
    os.waitpid(pid, 0)
    os.close(terminal)
    assert b"/dev/pts/" in said, said


def test_a_requeue_is_asked_for_with_a_reason_and_logs_go_on_across_attempts(stepper):
    in_state(stepper, "PROGRESS")
    argv = [sys.executable, "-m", "trainmaster", "jobs", "logs", stepper.job_id, "-f", "--rank", "2"]
    argv += ["--grep", r"step 5 |attempt 1, cycle"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "step 5 of rank 2 in attempt 0\n"
        done = command("requeue", "--reason", "new data", stepper.job_id)
        assert done.stdout == f"job {stepper.job_id}: REQUEUED\n", done.stderr
        assert following.stdout.readline() == "--- attempt 1, cycle 0 ---\n"
        assert following.stdout.readline() == "step 5 of rank 2 in attempt 1\n"
        following.terminate()
    event = next(event for event in stepper.events() if event.state == "REQUEUED")
    assert (event.cause, event.detail["reason"]) == ("requeue", "new data")
    assert event.detail["requeued_by"]
    row = show(stepper)["cycles"][0]
    assert row["state"] == "REQUEUED" and "'new data'" in row["why"]
    lines = command("logs", stepper.job_id, "--rank", "all", "--attempt", 0, "--grep", "step 7 ").stdout.splitlines()
    assert sorted(lines) == [f"[{rank}] step 7 of rank {rank} in attempt 0" for rank in range(4)]


def test_a_job_in_any_shell_by_its_number(stepper):
    job = trainmaster.job(stepper.job_id)
    assert job.wait_for("RUNNING", timeout_s=60) == "RUNNING"
    assert [row.attempt for row in job.life()][:1] == [0]
    assert next(job.logs(rank=1, attempt=0)) == "step 0 of rank 1 in attempt 0\n"
    with pytest.raises(TimeoutError, match="it is RUNNING"):
        job.wait(timeout_s=0.2)
    with pytest.raises(trainmaster.errors.UsageError, match="1234_5"):
        trainmaster.job("job-7")


def rpcs(lab: Lab) -> dict[str, int]:
    """What slurmctld has been asked since the last reset, by kind of question."""
    text = lab.run(["sdiag"]).stdout.partition("by message type")[2].partition("by user")[0]
    return {kind: int(count) for kind, count in re.findall(r"(\w+)\s+\(\s*\d+\) count:(\d+)", text)}


@pytest.mark.parametrize(
    "processes", [10, pytest.param(1, marks=pytest.mark.slow), pytest.param(100, marks=pytest.mark.slow)]
)
def test_clients_that_wait_ask_no_more_often_than_one(stepper, lab, processes):
    in_state(stepper, "RUNNING")
    every_s, seconds = 2.0, 7.0
    lab.run(["sdiag", "--reset"])
    argv = [sys.executable, PROGRAMS / "waiting_clients.py", stepper.run_dir, stepper.job_id, processes]
    began = time.monotonic()
    subprocess.run([str(word) for word in (*argv, seconds, every_s)], check=True, timeout=240)
    took_s = time.monotonic() - began
    asked = rpcs(lab)
    assert 2 <= asked["REQUEST_JOB_INFO"] <= took_s / every_s + 2, asked
    # Each client makes sure once that the job of this number is the one it means; all together ask for that once.
    assert asked.get("REQUEST_JOB_INFO_SINGLE", 0) <= took_s / every_s + 2, asked


def test_an_ended_job_is_requeued_and_runs_again(stepper):
    (stepper.run_dir.parents[1] / "stop").touch()
    stepper.wait()
    assert stepper.state == "SUCCEEDED"
    attempt = stepper.events()[-1].attempt
    told = command("requeue", "--dry-run", stepper.job_id).stdout
    assert re.match(rf"job {stepper.job_id}: COMPLET(ED|ING); would", told), told
    assert stepper.requeue("once more").state == "REQUEUED"
    assert stepper.exception() is None
    assert stepper.events()[-1].attempt == attempt + 1
    assert "requeued by" in show(stepper)["cycles"][-2]["why"]


def test_logs_of_a_job_that_has_not_started_point_to_what_there_is(tmp_path):
    job = submit("true", spec=small(sbatch={"hold": True}), folder=tmp_path)
    said = command("logs", job.job_id).stderr
    assert f"jobs logs --supervisor {job.job_id}" in said
    assert "JobHeldUser" in command("show", job.job_id).stdout
    assert "waits in the queue already" in command("requeue", job.job_id).stderr
    job.cancel()


def test_the_rank_that_failed_first_is_found(tmp_path):
    program = "import os, sys, time\nif os.environ['RANK'] == '1': sys.exit('it was me')\ntime.sleep(60)"
    job = submit([sys.executable, "-c", program], spec=small(tasks_per_node=3, no_progress_max=1), folder=tmp_path)
    job.wait()
    assert command("logs", "--failed", job.job_id).stdout == "it was me\n"
    assert "rank 1 on n" in show(job)["cycles"][0]["why"]


def test_gc_cleans_what_ended_and_leaves_what_lives(tmp_path):
    ended = submit("true", spec=small(), folder=tmp_path)
    waiting = submit("true", spec=small(sbatch={"hold": True}), folder=tmp_path)
    ended.wait()
    assert "0 of 2 jobs removed" in command("gc", "--folder", tmp_path).stdout
    until(
        lambda: f"would remove  {ended.job_id}" in command("gc", "--older-than", 0, "--dry-run").stdout,
        "the ended job has left the queue",
    )
    assert ended.run_dir.exists()
    done = command("gc", "--older-than", 0, "--folder", tmp_path)
    assert f"removed  {ended.job_id} " in done.stdout and not ended.run_dir.exists()
    assert waiting.run_dir.exists()
    listed = [row["job_id"] for row in json.loads(command("list", "--json").stdout)]
    assert int(waiting.job_id) in listed and int(ended.job_id) not in listed
    waiting.cancel()


# --- last, since its half minute has passed, and since the other stops slurmctld --------------------------------------


def test_timed_out(overdue):
    overdue.wait(timeout_s=200)
    assert overdue.state == "TIMED_OUT", states(overdue)
    assert overdue.events()[-1].cause == "timeout"


def test_a_job_whose_cluster_is_gone_is_unknown_and_who_waits_is_told(lab, tmp_path):
    held = submit("true", spec=small(sbatch={"hold": True}), folder=tmp_path)
    lab.stop_process("slurmctld")
    try:
        # For half a minute its record alone says that it waits; who asks later gets no answer.
        (submitted,) = record.read(held.run_dir)
        earlier = replace(submitted, epoch_s=submitted.epoch_s - 60)
        (held.run_dir / record.FILE).write_text(record.to_line(earlier))
        shown = show(held)
        assert shown["state"] == "UNKNOWN" and shown["ended_s"] is None
        with pytest.raises(TimeoutError, match="has not ended within"):
            TrainmasterJob.from_id(held.job_id).wait(timeout_s=1.0)
        # A slurmctld that lost its memory: the job is in no queue, and nobody ever wrote how it ended.
        for path in (lab.folder / "state").glob("job_state*"):
            path.unlink()
    finally:
        lab.start_slurmctld()
    again = TrainmasterJob.from_id(held.job_id)
    again.wait(timeout_s=120)
    assert again.state == "LOST"
    assert again.exception() is not None
