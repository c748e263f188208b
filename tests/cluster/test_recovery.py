"""Faults on a real Slurm with production time-outs (SlurmdTimeout=300): the run goes on, and the record says why."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from real_lab import wait_for
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher.follow.job import TrainmasterJob
from trainmaster.launcher.node import processes
from trainmaster.launcher.submit.executor import submit
from trainmaster.launcher.submit.spec import JobSpec

pytestmark = pytest.mark.cluster

COUNTER = Path(__file__).parents[1] / "programs" / "counter.py"


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    with up(LabSpec(nodes=6, leaf=3)) as lab:
        monkeypatch.setenv("SLURM_CONF", lab.env["SLURM_CONF"])
        yield lab


def counter(folder: Path, *options: object, steps: int = 80, **spec: Any) -> TrainmasterJob[None]:
    values: dict[str, Any] = {"nodes": 3, "time": 10, "mem": "1G"} | spec
    program = [sys.executable, str(COUNTER), str(steps), *map(str, options)]
    return submit(program, spec=JobSpec(**values), folder=folder)


def story(job: TrainmasterJob[Any]) -> list[tuple[str, str | None]]:
    return [(event.state, event.cause) for event in job.events()]


def ranks_alive(job: TrainmasterJob[Any]) -> list[str]:
    """Rank processes, of any cycle, that still run."""
    alive = []
    for path in job.run_dir.glob("attempt*/rank*.pid"):
        text = path.read_text().split()
        if not text:
            continue  # the disk was full
        pid, started, node = text
        if processes.start_time(int(pid)) == int(started):
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z":
                alive.append(f"{path.parent.name}/{path.name} on {node}")
    return alive


def none_alive(job: TrainmasterJob[Any], timeout_s: float = 40.0) -> None:
    """Slurm may take its KillWait (30 s) to end a job; afterwards nothing may be left."""
    deadline = time.monotonic() + timeout_s
    while ranks_alive(job) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ranks_alive(job) == []


def test_a_crashed_rank_is_restarted_in_place(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path, "--crash-at", 30, spares=1)
    assert job.exception() is None
    running = [event for event in job.events() if event.state == "RUNNING"]
    assert [event.cause for event in running] == [None, "rank_crash"]
    assert running[0].nodes == running[1].nodes and running[1].spares == running[0].spares
    failure = wait_for(job, "RESTARTING").detail["failure"]
    assert (failure["rank"], failure["signal"]) == (1, 9)
    out = (job.run_dir / "attempt0.1" / "rank0.out").read_text()
    assert "because of 'rank_crash'" in out and "starts at 0 " not in out
    none_alive(job)


def test_a_dead_node_is_replaced_by_a_spare(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path, spares=1)
    victim = wait_for(job, "PROGRESS").nodes[2]
    lab.fault("node-death", victim)
    assert job.exception() is None
    restarting = wait_for(job, "RESTARTING")
    assert (restarting.cause, restarting.dead) == ("node_death", (victim,))
    assert victim not in wait_for(job, "RUNNING", count=2).nodes
    assert "REQUEUED" not in [state for state, _ in story(job)]


def test_a_frozen_node_is_replaced_and_its_ranks_die_when_it_thaws(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path, steps=300, spares=1)
    victim = wait_for(job, "PROGRESS").nodes[1]
    lab.fault("node-freeze", victim)
    restarting = wait_for(job, "RESTARTING")
    assert (restarting.cause, restarting.dead) == ("node_silent", (victim,))
    wait_for(job, "RUNNING", count=2)
    assert any("attempt0.0" in entry for entry in ranks_alive(job)), "the frozen rank cannot be killed yet"
    lab.fault("node-thaw", victim)
    deadline = time.monotonic() + 15
    while any("attempt0.0" in entry for entry in ranks_alive(job)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any("attempt0.0" in entry for entry in ranks_alive(job))
    assert job.exception() is None


def test_two_nodes_die_in_the_same_second(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path, spares=2)
    nodes = wait_for(job, "PROGRESS").nodes
    lab.fault("node-death", nodes[1])
    lab.fault("node-death", nodes[2])
    assert job.exception() is None
    lost = {node for event in job.events() for node in event.dead}
    assert lost == {nodes[1], nodes[2]}
    assert not lost & set([event for event in job.events() if event.state == "RUNNING"][-1].nodes)


def test_a_spare_that_died_is_not_used(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path, steps=150, spares=2)
    first = wait_for(job, "PROGRESS")
    lab.fault("node-death", first.spares[0])
    wait_for(job, "NODE_LOST")
    lab.fault("node-death", first.nodes[2])
    assert job.exception() is None
    assert set([event for event in job.events() if event.state == "RUNNING"][-1].nodes) == {
        first.nodes[0],
        first.nodes[1],
        first.spares[1],
    }


def test_without_a_spare_the_job_is_requeued_at_once_without_the_dead_node(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path, exclude="n06")
    victim = wait_for(job, "PROGRESS").nodes[2]
    lab.fault("node-death", victim)
    assert job.exception() is None
    requeued, started = wait_for(job, "REQUEUED"), wait_for(job, "STARTING", count=2)
    assert requeued.detail["excluded"] == [victim]
    again = wait_for(job, "RUNNING", count=2)
    assert again.attempt == 1 and not {victim, "n06"} & set(again.nodes)
    # Neither SlurmdTimeout (300 s) nor the credential's 121 s was waited for.
    assert started.epoch_s - requeued.epoch_s < 100


def test_the_supervisors_node_dies(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path, spares=1)
    first = wait_for(job, "PROGRESS")
    host = wait_for(job, "STARTING").detail["node"]
    lab.fault("node-death", host)
    assert job.exception() is None
    again = wait_for(job, "RUNNING", count=2)
    assert (
        again.cause == "supervisor_death"
        and host not in again.nodes
        and set(again.nodes)
        <= {
            *first.nodes,
            *first.spares,
        }
    )
    # Slurm would go on believing in a job without processes; the new supervisor has ended it.
    deadline = time.monotonic() + 30
    while "RUNNING" in lab.run(["squeue", "-h", "-o", "%T"]).stdout and time.monotonic() < deadline:
        time.sleep(0.2)
    assert "RUNNING" not in lab.run(["squeue", "-h", "-o", "%T"]).stdout
    none_alive(job)


def test_a_crash_loop_ends_with_the_first_failing_ranks_traceback(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path, "--always-crash", backoff_s=0.2)
    error = job.exception()
    assert error is not None and "ValueError: rank 1 fails on purpose" in str(error)
    assert story(job)[-1] == ("NO_PROGRESS", "no_progress")
    assert len([event for event in job.events() if event.state == "RESTARTING"]) == 2


@pytest.mark.parametrize(
    ("code", "state", "cause"), [(93, "FAILED_USER", "never_requeue"), (85, "SUCCEEDED", "program")]
)
def test_reserved_exit_codes(lab: Lab, tmp_path: Path, code: int, state: str, cause: str) -> None:
    job = counter(tmp_path, "--exit", code, steps=10, spares=1)
    job.exception()
    assert story(job)[-1] == (state, cause)
    if code == 85:
        first, second = [event for event in job.events() if event.state == "RUNNING"]
        assert first.nodes[1] not in second.nodes and second.cause == "exclude_node"


def test_a_taken_port_is_another_port_next_time(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path, "--exit", 1, "--say", "RuntimeError: EADDRINUSE, address already in use", steps=10)
    assert job.exception() is None
    assert wait_for(job, "RESTARTING").cause == "port_taken"


def test_ranks_that_ignore_sigterm_and_fork_children(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path, "--ignore-sigterm", "--fork-children", "--crash-at", 20, stop_grace_s=0.5)
    assert job.exception() is None
    none_alive(job)
    children = [int(pid) for path in job.run_dir.glob("children-*") for pid in path.read_text().split()]
    assert len(children) == 6, "three ranks, two cycles"
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def test_a_hundred_megabytes_on_one_line(lab: Lab, tmp_path: Path) -> None:
    def shout() -> None:
        import sys

        sys.stderr.write("x" * 100_000_000)
        raise ValueError("after much noise")

    job = submit(shout, spec=JobSpec(nodes=1, time=5), folder=tmp_path)
    error = job.exception()
    assert error is not None and "ValueError: after much noise" in str(error) and len(str(error)) < 100_000
    assert (job.run_dir / "attempt0.0" / "rank0.err").stat().st_size > 100_000_000


def test_cancel_while_running_asks_for_a_checkpoint_and_leaves_nothing(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path, "--checkpoint", "--fork-children", steps=2000)
    wait_for(job, "PROGRESS")
    job.cancel()
    job.wait()
    assert job.state == "CANCELLED"
    assert story(job)[-1] == ("CANCELLED", "user")
    none_alive(job)


def test_scancel_by_hand_ends_as_cancelled(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path, steps=2000)
    wait_for(job, "PROGRESS")
    lab.run(["scancel", job.job_id])
    job.wait()
    assert story(job)[-1] == ("CANCELLED", "user")
    none_alive(job)


def test_cancel_while_pending(lab: Lab, tmp_path: Path) -> None:
    blocker = counter(tmp_path, steps=2000, nodes=6)
    wait_for(blocker, "RUNNING")
    job = counter(tmp_path, steps=10, mem="1000G")
    job.cancel()
    job.wait()
    assert job.state == "CANCELLED"
    blocker.cancel()
    blocker.wait()
    none_alive(blocker)


def test_cancel_while_starting_and_while_restarting(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path, steps=2000)
    wait_for(job, "STARTING")
    job.cancel()
    job.wait()
    assert job.state == "CANCELLED"
    none_alive(job)
    loop = counter(tmp_path, "--always-crash", backoff_s=60.0, no_progress_max=5)
    wait_for(loop, "RESTARTING", count=2)
    loop.cancel()
    loop.wait()
    assert loop.state == "CANCELLED"
    none_alive(loop)


def test_time_limit_checkpoints_and_requeues(lab: Lab, tmp_path: Path) -> None:
    # Slurm looks every 30 s whether a warning is due, and sends it up to a minute early.
    job = counter(tmp_path, "--checkpoint", "--until-asked", steps=20, time=1, checkpoint_signal_s=50)
    assert job.exception() is None
    assert wait_for(job, "REQUEUED").cause == "timeout"
    again = wait_for(job, "RUNNING", count=2)
    assert again.attempt == 1
    assert "starts at 0 " not in (job.run_dir / "attempt1.0" / "rank0.out").read_text()


def test_preemption_checkpoints_and_comes_back(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path, "--checkpoint", steps=200, nodes=6, mem="1000G")
    wait_for(job, "PROGRESS")
    urgent = counter(tmp_path, steps=20, nodes=6, partition="high", mem="1000G")
    assert urgent.exception() is None
    assert job.exception() is None
    assert wait_for(job, "REQUEUED").cause == "preemption"
    assert "starts at 0 " not in (job.run_dir / "attempt1.0" / "rank0.out").read_text()


def test_preemption_without_notice_comes_back_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `send_user_signal` Slurm sends SIGTERM to the steps, and not to the batch step."""
    with up(LabSpec(nodes=3, settings={"SlurmctldParameters": ""})) as lab:
        monkeypatch.setenv("SLURM_CONF", lab.env["SLURM_CONF"])
        job = counter(tmp_path, steps=200, mem="1000G")
        wait_for(job, "PROGRESS")
        assert counter(tmp_path, steps=20, partition="high", mem="1000G").exception() is None
        assert job.exception() is None
        assert wait_for(job, "REQUEUED").cause == "preemption"


def test_slurmctld_is_not_needed_while_the_job_runs(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path, "--crash-at", 60, spares=1)
    wait_for(job, "PROGRESS")
    lab.fault("slurmctld-freeze", "")
    try:
        assert wait_for(job, "RUNNING", count=2).cause == "rank_crash"
        assert wait_for(job, "SUCCEEDED")
        job.wait()
    finally:
        lab.fault("slurmctld-thaw", "")
    none_alive(job)


@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_in_the_job_folder(lab: Lab, tmp_path: Path) -> None:
    def fill() -> None:
        import os
        from pathlib import Path

        with Path(os.environ["TRAINMASTER_RUN_DIR"], f"big-{os.environ['RANK']}").open("wb") as stream:
            while True:
                stream.write(b"x" * 65536)
                stream.flush()

    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=True)
    try:
        job = submit(fill, spec=JobSpec(nodes=2, time=5), folder=small)
        error = job.exception()
        assert error is not None and "No space left on device" in str(error)
        assert story(job)[-1] == ("FAILED_INFRA", "disk_full")
        none_alive(job)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
