"""The srun of a cycle: what it inherits, how its end is judged, how it is ended. A fake srun on PATH plays it."""

import time
from pathlib import Path

import pytest

from trainmaster.launcher.plan import Plan
from trainmaster.launcher.rank.rank_env import CycleFacts
from trainmaster.launcher.supervise import rank_step
from trainmaster.launcher.supervise.rank_step import RankStep, advice, environment


def plan(folder: Path, **values: object) -> Plan:
    given = {"uid": "u", "name": "x", "run_dir": str(folder), "python": "/py", "nodes": 2, "runner": "srun"} | values
    return Plan(program=("./a",), **given)  # type: ignore[arg-type]


def facts(folder: Path) -> CycleFacts:
    return CycleFacts(
        job_id=7,
        uid="u",
        run_dir=str(folder),
        attempt=0,
        cycle=0,
        cause="",
        nodes=("n2", "n1"),
        tasks_per_node=1,
        master_addr="127.0.0.1",
        master_port=12345,
        restarts_max=10,
    )


def test_what_an_outer_step_left_behind_does_not_shape_this_one(tmp_path):
    base = {
        "HOME": "/root",
        "SLURM_CONF": "/c",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_PARTITION": "gpu",
        "SLURM_RESTART_COUNT": "1",
        **dict.fromkeys(("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_JOB_NUM_NODES", "SLURM_NNODES"), "9"),
        **dict.fromkeys(("SLURM_CPU_BIND", "SLURM_STEP_ID", "SLURM_GPUS_PER_NODE", "SLURM_HOSTFILE"), "x"),
        **dict.fromkeys(("PMIX_RANK", "PMI_SIZE", "SRUN_CPUS_PER_TASK", "SLURM_MPI_TYPE"), "1"),
    }
    env = environment(base, plan(tmp_path, env={"A": "b"}), facts(tmp_path), hosts=tmp_path / "attempt0.0" / "hostfile")
    slurms = {name for name in env if name.startswith(("SLURM", "SRUN", "PMI"))}
    assert slurms == {
        *("SLURM_CONF", "SLURM_JOB_ID", "SLURM_JOB_PARTITION", "SLURM_RESTART_COUNT"),
        "SLURM_HOSTFILE",
    }
    assert env["SLURM_HOSTFILE"].endswith("attempt0.0/hostfile")
    assert (env["HOME"], env["A"], env["TRAINMASTER_CYCLE"]) == ("/root", "b", "0")


@pytest.fixture
def srun(tmp_path, monkeypatch):
    """Make `srun` the given lines of sh."""

    def install(lines: str) -> None:
        path = tmp_path / "bin" / "srun"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{lines}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")

    return install


def soon(condition, timeout_s: float = 20.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_a_step_that_ends_before_its_ranks_is_a_failure_told_once(tmp_path, srun, monkeypatch):
    monkeypatch.setattr(rank_step, "NEWS_PATIENCE_S", 0.1)
    srun("echo \"srun: unrecognized option '--container-image=x'\" >&2; exit 1")
    step = RankStep(plan(tmp_path))
    step.start(facts(tmp_path))
    told = []
    assert soon(lambda: told.append(step.failure()) or told[-1] is not None)
    assert (told[-1].rank, told[-1].node, told[-1].code) == (-1, "n2", 71)
    assert "this Slurm has no pyxis" in told[-1].text
    assert step.failure() is None
    assert (tmp_path / "attempt0.0" / "hostfile").read_text() == "n2\nn1\n"


def test_an_srun_that_waits_for_tasks_that_never_came_is_a_failure(tmp_path, srun):
    srun("echo 'srun: error: Task launch for StepId=7.1 failed on node n1: Job credential expired' >&2; exec sleep 60")
    step = RankStep(plan(tmp_path))
    step.start(facts(tmp_path))
    told = []
    assert soon(lambda: told.append(step.failure()) or told[-1] is not None)
    assert "failed on node n1" in told[-1].text
    assert soon(lambda: step.ended(hurry=True))


def test_without_srun_the_failure_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_step, "NEWS_PATIENCE_S", 0.0)
    monkeypatch.setenv("PATH", str(tmp_path))
    step = RankStep(plan(tmp_path))
    step.start(facts(tmp_path))
    failure = step.failure()
    assert failure is not None and "could not start srun" in failure.text
    assert step.ended(hurry=False)


def test_an_end_that_srun_refuses_is_forced(tmp_path, srun):
    srun("trap '' TERM; echo up; while :; do sleep 0.1; done")
    step = RankStep(plan(tmp_path))
    step.start(facts(tmp_path))
    log = tmp_path / "attempt0.0" / "step.log"
    assert soon(lambda: log.read_text() == "up\n")
    assert step.failure() is None
    assert not step.ended(hurry=True)
    assert soon(lambda: step.ended(hurry=True))


def test_advice_only_where_there_is_some():
    assert "srun --mpi=list" in advice("srun: error: cannot create mpi context for mpi/pmix")
    assert advice("srun: error: n1: task 0: Exited with exit code 3") == ""


def test_a_slurmctld_that_is_away_is_waited_for(tmp_path, srun, monkeypatch):
    """A job would otherwise have used up its restarts in a minute and a half without a controller."""
    monkeypatch.setattr(rank_step, "NEWS_PATIENCE_S", 0.1)
    monkeypatch.setattr(rank_step, "AWAY_PAUSE_S", 0.1)
    tries = tmp_path / "tries"
    away = "srun: error: Unable to confirm allocation for job 7: Socket timed out on send/recv operation"
    srun(f"echo >>{tries}; if [ $(wc -l <{tries}) -lt 4 ]; then echo '{away}' >&2; exit 1; fi; exec sleep 60")
    step = RankStep(plan(tmp_path))
    step.start(facts(tmp_path))
    told = []
    assert soon(lambda: told.append(step.failure()) or (tries.exists() and tries.read_text().count("\n") == 4))
    assert not any(told) and step.failure() is None
    assert soon(lambda: step.ended(hurry=True))


def test_a_job_that_slurm_does_not_know_is_not_tried_for_ever(tmp_path, srun, monkeypatch):
    monkeypatch.setattr(rank_step, "NEWS_PATIENCE_S", 0.1)
    srun("echo 'srun: error: Unable to confirm allocation for job 7: Invalid job id specified' >&2; exit 1")
    step = RankStep(plan(tmp_path))
    step.start(facts(tmp_path))
    assert soon(lambda: step.failure() is not None)
