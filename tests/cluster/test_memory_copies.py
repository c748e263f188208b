"""Copies in nodes' memory on a real Slurm: a lost node costs a few steps; where memory cannot help, the disk does."""

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import real_lab
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher import record
from trainmaster.launcher.follow.job import TrainmasterJob
from trainmaster.launcher.record import Event
from trainmaster.launcher.submit.executor import submit
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.launcher.supervise.partners import pair

pytestmark = pytest.mark.cluster
PROGRAM = Path(__file__).parents[1] / "programs" / "memory_trainer.py"
MEMORY = Path("/dev/shm")
EVERY, MEMORY_EVERY = 60, 5
IN_BETWEEN = EVERY + 15
"""A step about which a test hears before the next checkpoint is due."""


@pytest.fixture(scope="module")
def made() -> Iterator[Lab]:
    with up(LabSpec(nodes=6, leaf=3)) as one:
        yield one


class Nodes:
    """The lab, whose dead nodes boot after each test."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.dead: list[str] = []

    def die(self, *names: str) -> None:
        self.lab.fault("node-death", ",".join(names))
        self.dead += names


@pytest.fixture
def nodes(made: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    monkeypatch.setenv("SLURM_CONF", made.env["SLURM_CONF"])
    one = Nodes(made)
    yield one
    if one.dead:
        made.fault("node-return", ",".join(one.dead))


def train(folder: Path, *, steps: int = 140, every: int = EVERY, **spec: Any) -> TrainmasterJob[None]:
    values: dict[str, Any] = {"nodes": 3, "time": 10, "mem": "1G"} | spec
    argv = [sys.executable, str(PROGRAM), str(folder / "checkpoints"), str(steps), str(every), str(MEMORY_EVERY)]
    return submit(argv, spec=JobSpec(**values), folder=folder / "jobs")


def wait_for_step(job: TrainmasterJob[Any], step: int) -> None:
    real_lab.until(
        lambda: (record.last_step(job.run_dir, record.read(job.run_dir)) or 0) >= step, f"step {step}", timeout_s=120
    )


def running(job: TrainmasterJob[Any]) -> list[Event]:
    return [event for event in job.events() if event.state == "RUNNING"]


def went_on(job: TrainmasterJob[Any], *, cycle: int, ranks: int = 3) -> tuple[int, str]:
    """The step after which all ranks went on, and from where."""
    found = set()
    for rank in range(ranks):
        said = (job.run_dir / f"attempt0.{cycle}" / f"rank{rank}.out").read_text()
        told = re.search(r"goes on after (\d+) from (\w+) facts \{'seen': (\d+)\}", said)
        assert told is not None, said
        assert int(told[3]) == 8 * int(told[1])
        found.add((int(told[1]), told[2]))
    assert len(found) == 1, found
    return found.pop()


def on_disk(folder: Path) -> int:
    """The newest step on the disk."""
    return max(int(path.name.removeprefix("step_")) for path in (folder / "checkpoints").glob("step_????????"))


def in_memory(job: TrainmasterJob[Any]) -> list[Path]:
    """The folders of this job's agents; other labs have jobs of the same number."""
    return sorted(path for path in MEMORY.glob(f"trainmaster-{job.job_id}-*") if _is_of(path, job))


def _is_of(folder: Path, job: TrainmasterJob[Any]) -> bool:
    try:
        return any(str(job.run_dir) in path.read_text() for path in folder.glob("env-*.json"))
    except OSError:
        return False  # it is being removed


def all_right(job: TrainmasterJob[Any], *, cycle: int, ranks: int = 3) -> bool:
    logs = [job.run_dir / f"attempt0.{cycle}" / f"rank{rank}.out" for rank in range(ranks)]
    return all("the state is right" in log.read_text() for log in logs)


def test_a_node_dies_between_two_checkpoints(nodes: Nodes, tmp_path: Path) -> None:
    job = train(tmp_path, spares=1)
    wait_for_step(job, IN_BETWEEN)
    victim = running(job)[0].nodes[2]
    nodes.die(victim)
    assert job.exception() is None
    step, source = went_on(job, cycle=1)
    assert source == "memory" and step > EVERY and step % MEMORY_EVERY == 0
    second = running(job)[1]
    assert second.detail["copies"] == {"step": step, "fetched": 1}
    # The others are where they were, with their copies; the spare has the dead node's rank.
    assert [node for node in second.nodes if node not in running(job)[0].spares] == list(running(job)[0].nodes[:2])
    assert second.nodes[2] in running(job)[0].spares
    assert all_right(job, cycle=1)
    # The dead node's agent could not clean up; whoever comes to the node next does.
    real_lab.until(lambda: len(in_memory(job)) <= 1, "the living agents leave nothing in memory")
    again = train(tmp_path / "again", steps=1, nodes=1)
    assert again.exception() is None
    real_lab.until(lambda: not in_memory(job) and not in_memory(again), "nothing is left in memory")


def test_a_damaged_copy_is_refused_and_the_disk_serves(nodes: Nodes, tmp_path: Path) -> None:
    job = train(tmp_path, nodes=2)
    wait_for_step(job, IN_BETWEEN)
    pid = (job.run_dir / "attempt0.0" / "rank1.pid").read_text().split()[0]
    # Stopped, so that nothing is copied any more; then each bit of it that could serve is another.
    os.kill(int(pid), signal.SIGSTOP)
    time.sleep(1.0)
    for path in (path for folder in in_memory(job) for path in folder.glob("copies/1.*")):
        content = bytearray(path.read_bytes())
        content[100] ^= 1
        path.write_bytes(content)
    newest = on_disk(tmp_path)
    os.kill(int(pid), signal.SIGKILL)
    assert job.exception() is None
    assert went_on(job, cycle=1, ranks=2) == (newest, "disk")
    said = (job.run_dir / "attempt0.1" / "rank1.err").read_text()
    assert "is damaged" in said, said
    assert all_right(job, cycle=1, ranks=2)
    real_lab.until(lambda: not in_memory(job), "nothing is left in memory")


@pytest.mark.slow
def test_a_node_and_the_keeper_of_its_copies_die(nodes: Nodes, tmp_path: Path) -> None:
    job = train(tmp_path, spares=2)
    wait_for_step(job, IN_BETWEEN)
    names = running(job)[0].nodes
    # In the lab three nodes, by their number, are under one leaf.
    keepers = pair({name: f"leaf{(int(name.lstrip('n')) - 1) // 3}.{name}" for name in names})
    owner = next(name for name in names if names[0] not in (name, keepers[name]))
    nodes.die(owner, keepers[owner])
    assert job.exception() is None
    # The second death may be noticed after the first has been answered.
    last = running(job)[-1].cycle
    step, source = went_on(job, cycle=last)
    assert source == "disk" and step % EVERY == 0
    assert all_right(job, cycle=last)


@pytest.mark.slow
def test_the_supervisors_node_dies(nodes: Nodes, tmp_path: Path) -> None:
    """The next supervisor learns from the agents what they hold."""
    job = train(tmp_path, spares=1)
    wait_for_step(job, IN_BETWEEN)
    nodes.die(running(job)[0].nodes[0])
    assert job.exception() is None
    step, source = went_on(job, cycle=1)
    assert source == "memory" and step > EVERY
    assert all_right(job, cycle=1)


@pytest.mark.slow
def test_two_nodes_die_one_after_the_other(nodes: Nodes, tmp_path: Path) -> None:
    """After the first loss each copy has two homes again; after the second nothing comes from the disk either."""
    job = train(tmp_path, steps=400, every=0, spares=2)
    wait_for_step(job, 30)
    nodes.die(running(job)[0].nodes[2])
    real_lab.until(lambda: sum(event.state == "PROGRESS" for event in job.events()) == 2, "a spare runs", timeout_s=120)
    first, source = went_on(job, cycle=1)
    assert source == "memory"
    wait_for_step(job, first + 60)
    nodes.die(running(job)[1].nodes[1])
    assert job.exception() is None
    second, source = went_on(job, cycle=2)
    assert source == "memory" and second > first
    assert all_right(job, cycle=2)


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["srun", "torchrun"])
def test_ranks_that_are_a_steps_tasks(nodes: Nodes, tmp_path: Path, runner: str) -> None:
    job = train(tmp_path, nodes=2, tasks_per_node=2, spares=1, every=0, runner=runner)
    wait_for_step(job, 30)
    nodes.die(running(job)[0].nodes[1])
    assert job.exception() is None
    step, source = went_on(job, cycle=1, ranks=4)
    assert source == "memory" and step % MEMORY_EVERY == 0
    assert running(job)[1].detail["copies"]["fetched"] == 2
    assert all_right(job, cycle=1, ranks=4)
