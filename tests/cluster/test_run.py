"""`exec trainmaster run` as the last line of somebody's own sbatch script, submitted with nothing but sbatch."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.real_lab import until

from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher.follow.job import TrainmasterJob

pytestmark = pytest.mark.cluster

COUNTER = Path(__file__).parents[1] / "programs" / "counter.py"
HEAD = """\
#!/bin/bash
#SBATCH --job-name=mine --output=mine-%j.out --mem=200 --time=10 --no-kill --requeue --open-mode=append
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with up(LabSpec(nodes=4, leaf=2, settings={"SchedulerParameters": "batch_sched_delay=1"})) as lab:
        yield lab


@pytest.fixture(autouse=True)
def as_a_person_works(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of one's own, with trainmaster's environment active, as its jobs find it too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_CONF", lab.env["SLURM_CONF"])
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")


def sbatch(text: str) -> TrainmasterJob[Any]:
    """Submit a script and wait until its job has made itself known."""
    Path("mine.sbatch").write_text(HEAD + text)
    job_id = int(shell("sbatch --parsable mine.sbatch"))
    until((Path("trainmaster_jobs") / str(job_id)).exists, f"job {job_id} made its folder: {output(job_id)}")
    return TrainmasterJob.from_id(job_id)


def shell(line: str) -> str:
    return subprocess.run(["bash", "-ec", line], check=True, capture_output=True, text=True, timeout=120).stdout


def output(job_id: int | str) -> str:
    path = Path(f"mine-{job_id}.out")
    return path.read_text() if path.exists() else "no output"


def story(job: TrainmasterJob[Any]) -> list[str]:
    return [event.state for event in job.events()]


def test_one_line_brings_ranks_restarts_and_a_record(lab: Lab):
    job = sbatch(
        f"#SBATCH --nodes=3 --ntasks-per-node=2\nexec trainmaster run --spares 1 -- python {COUNTER} 12 --crash-at 5\n"
    )
    assert job.results() == [None] * 4, output(job.job_id)
    assert story(job) == [
        "SUBMITTED",
        "STARTING",
        "RUNNING",
        "PROGRESS",
        "RESTARTING",
        "RUNNING",
        "PROGRESS",
        "SUCCEEDED",
    ]
    until(lambda: "JobState=COMPLETED" in shell(f"scontrol show job {job.job_id}"), "Slurm calls it COMPLETED")
    (shown,) = json.loads(shell("trainmaster jobs list --json"))[:1]
    assert (shown["job_id"], shown["name"], shown["state"]) == (int(job.job_id), "mine", "SUCCEEDED")
    assert "rank 3 starts at" in shell(f"trainmaster jobs logs {job.job_id} --rank 3 --cycle 1")
    assert "cycle 1 on" in shell(f"trainmaster jobs logs {job.job_id} --supervisor")
    assert "trainmaster run --spares 1" in (job.run_dir / "job.sbatch").read_text()


def test_ranks_see_every_gpu_of_their_node_however_it_was_asked_for(lab: Lab):
    program = 'python -c \'import os; print(os.environ["CUDA_VISIBLE_DEVICES"], os.environ["SLURM_CPUS_PER_TASK"])\''
    job = sbatch(
        "#SBATCH --nodes=1 --ntasks-per-node=2 --gpus-per-task=1 --cpus-per-task=2\n"
        f"exec trainmaster run -- {program}\n"
    )
    assert job.results() == [None, None], output(job.job_id)
    for rank in (0, 1):
        assert (job.run_dir / f"attempt0.0/rank{rank}.out").read_text() == "0,1 2\n"


def test_any_runner_and_a_warning_where_exec_was_forgotten(lab: Lab):
    program = "python -c 'import os; print(os.environ[\"PMIX_RANK\"])'"
    job = sbatch(f"#SBATCH --nodes=2\ntrainmaster run --spares 1 --mpi pmix -- {program}\n")
    assert job.results() == [None], output(job.job_id)
    assert (job.run_dir / "attempt0.0/rank0.out").read_text() == "0\n"
    assert "begin the last line of the script with `exec`" in output(job.job_id)


def test_a_task_of_an_array_is_a_job_of_its_own(lab: Lab):
    Path("mine.sbatch").write_text(
        HEAD.replace("%j", "%A_%a")
        + "#SBATCH --nodes=2 --array=1-2\n"
        + f"exec trainmaster run -- python {COUNTER} $((SLURM_ARRAY_TASK_ID * 4))\n"
    )
    array = shell("sbatch --wait --parsable mine.sbatch").strip()
    for task, steps in ((1, 4), (2, 8)):
        shown = json.loads(shell(f"trainmaster jobs show {array}_{task} --json"))
        assert (shown["state"], shown["cycles"][-1]["step"]) == ("SUCCEEDED", steps - 1), output(f"{array}_{task}")
    assert "starts at 0" in shell(f"trainmaster jobs logs {array}_2 --folder trainmaster_jobs")
    listed = json.loads(shell("trainmaster jobs list --json --limit 2"))
    assert {(row["job_id"], row["state"]) for row in listed} == {(f"{array}_{n}", "SUCCEEDED") for n in (1, 2)}


def test_cancelling_is_a_cancellation(lab: Lab):
    job = sbatch(f"exec trainmaster run -- python {COUNTER} 100000\n")
    until(lambda: job.state == "RUNNING", f"the program runs: {output(job.job_id)}")
    assert "CANCELLED" in shell(f"trainmaster jobs cancel {job.job_id}")
    assert story(job)[-1] == "CANCELLED"


def test_a_mistake_is_told_before_anything_is_made(lab: Lab):
    Path("mine.sbatch").write_text(HEAD + "exec trainmaster run -- python no-such-file.py\n")
    job_id = shell("sbatch --wait --parsable mine.sbatch || true").strip()
    assert "could not find the script no-such-file.py" in output(job_id)
    Path("mine.sbatch").write_text(HEAD + f"exec trainmaster run --nodes 2 -- python {COUNTER} 1\n")
    job_id = shell("sbatch --wait --parsable mine.sbatch || true").strip()
    assert f"job {job_id} has 1" in output(job_id)
    assert not Path("trainmaster_jobs").exists()


def test_a_held_allocation_runs_one_program_after_the_other(lab: Lab):
    holder = int(shell("sbatch --parsable --nodes=2 --mem=200 --time=10 --output=mine-%j.out --wrap 'sleep 600'"))
    until(lambda: "RUNNING" in shell(f"scontrol show job {holder}"), "the allocation is there")
    # As in the shell that `srun --overlap --pty bash` opens.
    inside = f"srun --jobid={holder} --overlap --nodes=1 --ntasks=1"
    for code in (0, 3):
        done = subprocess.run(
            ["bash", "-c", f"{inside} trainmaster run --no-progress-max 1 -- python -c 'raise SystemExit({code})'"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        # 93: never run this again by yourself.
        assert done.returncode == (93 if code else 0), done.stderr
        job: TrainmasterJob[Any] = TrainmasterJob.from_id(holder)
        assert story(job)[-1] == ("NO_PROGRESS" if code else "SUCCEEDED"), done.stderr
        assert job.events()[-1].ranks == 2
    assert len([path for path in Path("trainmaster_jobs").iterdir() if not path.is_symlink()]) == 2
    shell(f"scancel {holder}")


def test_two_lines_of_one_script_keep_their_folders_through_a_requeue(lab: Lab):
    job = sbatch(
        f"trainmaster run -- python {COUNTER} 3\ntrainmaster run -- python {COUNTER} 100000\n",
    )
    first = job.run_dir
    until(lambda: TrainmasterJob.from_id(job.job_id).run_dir != first, "the second line runs")
    second: TrainmasterJob[Any] = TrainmasterJob.from_id(job.job_id)
    until(lambda: second.state == "RUNNING", f"the program runs: {output(job.job_id)}")
    assert story(job)[-1] == "SUCCEEDED"
    shell(f"trainmaster jobs requeue --reason again {job.job_id}")
    until(lambda: story(second).count("RUNNING") == 2, f"the second line runs again: {output(job.job_id)}")
    assert TrainmasterJob.from_id(job.job_id).run_dir == second.run_dir
    assert story(job).count("STARTING") == 2 and story(job)[-1] == "SUCCEEDED"
    assert len([path for path in Path("trainmaster_jobs").iterdir() if not path.is_symlink()]) == 2
    shell(f"trainmaster jobs cancel --now {job.job_id}")


def test_a_requeue_goes_on_in_the_same_folder_without_the_dead_node(lab: Lab):
    # The last test: it breaks a node.
    job = sbatch(f"#SBATCH --nodes=2\nexec trainmaster run -- python {COUNTER} 80\n")
    until(lambda: job.state == "RUNNING", f"the program runs: {output(job.job_id)}")
    victim = job.events()[-1].nodes[1]
    lab.fault("node-death", victim)
    assert job.results() == [None, None], output(job.job_id)
    assert story(job).count("REQUEUED") == 1
    last = job.events()[-1]
    assert last.attempt == 1 and victim not in last.nodes
    assert TrainmasterJob.from_id(job.job_id).run_dir == job.run_dir
    until(lambda: "JobState=COMPLETED" in shell(f"scontrol show job {job.job_id}"), "Slurm calls it COMPLETED")
