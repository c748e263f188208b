"""Faults of ranks, of prologs and epilogs, and of the controller, on real Slurm (22.05.8, production settings)."""

import sys
import time
from collections.abc import Iterator

import pytest

from real_lab import Watched, until
from trainmaster.errors import LabError, UsageError
from trainmaster.lab import processes
from trainmaster.lab.cluster import LabSpec, up
from trainmaster.slurm.commands import Commands

pytestmark = pytest.mark.cluster

# Two ranks, each with a child that inherits its environment as data loaders do; says how each rank ended.
RANKS = """for rank in 0 1; do
    (RANK=$rank sh -c 'sleep 7000 & echo up; wait'; echo "rank $rank ended with $?") &
done
wait
"""

# What an agent with a fork server does: the rank's own environment says nothing, its pid file says all.
FORKED = """
import os, sys, time
from pathlib import Path
folder = Path(sys.argv[1]) / "attempt0.0"
folder.mkdir()
pid = os.fork()
if pid == 0:
    os.environ["RANK"] = "3"
    time.sleep(7000)
started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
(folder / "rank3.pid").write_text(f"{pid} {started} {os.environ['SLURMD_NODENAME']}\\n")
print("up", flush=True)
print("status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with up(LabSpec(nodes=4, gpus=0, settings={"KillWait": "2"})) as lab:
        yield Watched(lab, tmp_path_factory.mktemp("jobs"))


@pytest.fixture
def ranks(cluster: Watched) -> Iterator[int]:
    job_id = cluster.submit(RANKS)
    until(lambda: cluster.output(job_id).count("up") == 2, "both ranks run")
    yield job_id
    cluster.client.cancel(job_id)


@pytest.mark.parametrize(("signal", "status"), [("KILL", 137), ("SEGV", 139), ("ABRT", 134)])
def test_rank_crash_kills_that_rank_alone(cluster: Watched, ranks: int, signal: str, status: int) -> None:
    cluster.lab.fault("rank-crash", f"{ranks}:1", signal=signal)
    until(lambda: f"rank 1 ended with {status}" in cluster.output(ranks), "rank 1 ends")
    assert "rank 0 ended" not in cluster.output(ranks)
    assert cluster.job(ranks).state == "RUNNING"


def test_rank_hang_stops_the_rank_until_it_is_resumed(cluster: Watched, ranks: int) -> None:
    (pid,) = cluster.lab.fault("rank-hang", str(ranks)).pids

    def state() -> str:
        process = processes.look(pid)
        assert process is not None
        return process.state

    until(lambda: state() == "T", "rank 0 is stopped")
    assert cluster.job(ranks).state == "RUNNING"
    cluster.lab.fault("rank-resume", f"{ranks}:0")
    until(lambda: state() != "T", "rank 0 runs")
    with pytest.raises(LabError, match="not stopped"):
        cluster.lab.fault("rank-resume", f"{ranks}:0")


def test_a_forked_rank_is_found_by_its_pid_file_beside_the_jobs_output(cluster: Watched) -> None:
    run_dir = cluster.folder / "run"
    run_dir.mkdir()
    program = run_dir / "agent.py"
    program.write_text(FORKED)
    job_id = cluster.submit(f"exec {sys.executable} {program} {run_dir}", out="run/batch.out")
    until(lambda: "up" in cluster.output("run/batch.out"), "the rank runs")
    with pytest.raises(LabError, match="no process of rank 2"):
        cluster.lab.fault("rank-crash", f"{job_id}:2")
    assert cluster.lab.fault("rank-crash", f"{job_id}:3", dry_run=True).summary.startswith("would send SIGKILL")
    cluster.lab.fault("rank-crash", f"{job_id}:3")
    until(lambda: "status -9" in cluster.output("run/batch.out"), "the rank died")


def test_rank_faults_refuse_what_they_cannot_mean(cluster: Watched, ranks: int) -> None:
    with pytest.raises(UsageError, match="is not JOB"):
        cluster.lab.fault("rank-crash", "n01")
    with pytest.raises(UsageError, match="does not crash by"):
        cluster.lab.fault("rank-crash", f"{ranks}:0", signal="USR1")
    with pytest.raises(UsageError, match="knows no job"):
        cluster.lab.fault("rank-crash", "424242:0")


def test_prolog_fail_drains_the_node_and_holds_the_job(cluster: Watched) -> None:
    cluster.lab.fault("prolog-fail", "n04")
    job_id = cluster.submit("sleep 7000", "--nodelist=n04")
    until(lambda: "DRAIN" in cluster.node("n04").state, "n04 is drained")
    assert cluster.node("n04").reason.startswith("Prolog error")
    # Between its return and the hold it may be seen waiting for the node that it names.
    until(lambda: cluster.job(job_id).reason == "launch failed requeued held", "the job is requeued and held")
    job = cluster.job(job_id)
    assert job.state == "PENDING"
    assert cluster.lab.fault("prolog-mend", "n04").summary.endswith("resumed n04")
    until(lambda: cluster.node("n04").state == "IDLE", "n04 is back")
    # Released it would wait 121 s, as after every requeue.
    cluster.lab.run(["scontrol", "release", str(job_id)])
    cluster.client.update_job(job_id, StartTime="now")
    until(lambda: cluster.job(job_id).state == "RUNNING", "the job runs")
    cluster.client.cancel(job_id)


def test_epilog_fail_drains_the_node_after_the_job(cluster: Watched) -> None:
    cluster.lab.fault("epilog-fail", "n03")
    job_id = cluster.submit("true", "--nodelist=n03")
    until(lambda: "DRAIN" in cluster.node("n03").state, "n03 is drained")
    assert cluster.node("n03").reason.startswith("Epilog error")
    until(lambda: cluster.job(job_id).state == "COMPLETED", "the job itself is fine")
    cluster.lab.fault("epilog-mend", "n03")
    until(lambda: cluster.node("n03").state == "IDLE", "n03 is back")


def test_mending_leaves_a_drain_of_somebody_else(cluster: Watched) -> None:
    cluster.lab.run(["scontrol", "update", "NodeName=n02", "State=DRAIN", "Reason=[HC] fan: noisy"])
    assert cluster.lab.fault("prolog-mend", "n02").summary.endswith("succeeds again")
    assert "DRAIN" in cluster.node("n02").state
    cluster.lab.run(["scontrol", "update", "NodeName=n02", "State=RESUME"])


@pytest.mark.parametrize("signal", ["TERM", "KILL"])
def test_jobs_live_through_a_restart_of_slurmctld(cluster: Watched, ranks: int, signal: str) -> None:
    until(lambda: cluster.job(ranks).state == "RUNNING", "the job runs")
    # slurmctld writes changes down after up to 5 s; one that is killed sooner forgets a job that it had accepted.
    running_s = time.time()
    cluster.client.update_job(ranks, Comment="a change to write down")
    saved = cluster.lab.folder / "state" / "job_state"
    until(lambda: saved.exists() and saved.stat().st_mtime > running_s, "slurmctld has saved the job")
    before = cluster.lab.slurmctld
    cluster.lab.fault("slurmctld-restart", signal=signal)
    after = cluster.lab.slurmctld
    assert (after.pid, after.start_time) != (before.pid, before.start_time)
    assert not processes.alive(before.pid, before.start_time)
    assert cluster.job(ranks).state == "RUNNING"
    assert cluster.job(ranks).restarts == 0
    assert "ended" not in cluster.output(ranks)
    done = cluster.lab.run(["srun", "--mem=10", "echo", "hello"])
    assert done.stdout == "hello\n"


def test_a_frozen_slurmctld_answers_nobody_and_forgets_nothing(cluster: Watched, ranks: int) -> None:
    cluster.lab.fault("slurmctld-freeze")
    assert not Commands(env=cluster.lab.env, timeout_s=1.0).ping()
    cluster.lab.fault("slurmctld-thaw")
    until(cluster.client.ping, "slurmctld answers")
    assert cluster.job(ranks).state == "RUNNING"
    with pytest.raises(LabError, match="not frozen"):
        cluster.lab.fault("slurmctld-thaw")


def test_a_freeze_of_so_many_seconds_ends_by_itself(cluster: Watched) -> None:
    cluster.lab.fault("slurmctld-freeze", seconds=0.2)
    until(cluster.client.ping, "slurmctld answers")


def test_power_loss_needs_a_lab_with_cables(cluster: Watched) -> None:
    with pytest.raises(LabError, match=r"no cables|needs root"):
        cluster.lab.fault("power-loss", "n01")


def test_faults_refuse_unknown_names_targets_and_options(cluster: Watched) -> None:
    with pytest.raises(UsageError, match="no fault 'meteor'"):
        cluster.lab.fault("meteor", "n01")
    with pytest.raises(UsageError, match="does not take signal"):
        cluster.lab.fault("node-death", "n01", signal="KILL")
    with pytest.raises(UsageError, match="takes a target"):
        cluster.lab.fault("node-death")
    with pytest.raises(UsageError, match="takes no target"):
        cluster.lab.fault("slurmctld-restart", "n01")
