"""examples/recommender on a cluster with three kinds of nodes: it learns what plain training learns, whoever dies."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from real_lab import until
from trainmaster.lab.cluster import Lab, LabSpec, PartitionSpec, up

pytestmark = pytest.mark.cluster

RECOMMENDER = Path(__file__).resolve().parents[2] / "examples" / "recommender"
TOLERANCE = 0.01
ROLES = ("embedding", "loader", "worker", "trainer")
PARTITIONS = (
    PartitionSpec(name="cpu", nodes=5),
    PartitionSpec(name="highmem", nodes=3),
    PartitionSpec(name="gpu", nodes=3, gpus=1),
)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with up(LabSpec(partitions=PARTITIONS, settings={"SchedulerParameters": "bf_interval=1"})) as lab:
        yield lab


class Run:
    """`run.py` and the job that it submits."""

    def __init__(self, lab: Lab, folder: Path, *args: str) -> None:
        self.lab = lab
        self.folder = folder / "run"
        command = [sys.executable, str(RECOMMENDER / "run.py"), "--folder", str(self.folder), *args]
        self._process = subprocess.Popen(
            command, env={**lab.env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.job_id, self.job_dir = 0, self.folder

    def submitted(self) -> None:
        """Wait until the job is submitted."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        found = re.match(r"job (\d+) is submitted; its files lie in (.+)\n", line)
        assert found, line + self._process.stdout.read()
        self.job_id, self.job_dir = int(found[1]), Path(found[2])

    def close(self) -> None:
        """Leave no process behind after a failed test."""
        with self._process:
            self._process.kill()

    def wait_for_step(self, step: int) -> None:
        """Wait until the snapshot of a step, or of a later one, is whole."""
        deadline = time.monotonic() + 180
        while not any(int(path.parent.name[5:]) >= step for path in self.folder.glob("model/step_*/dense.pt")):
            assert self._process.poll() is None and time.monotonic() < deadline, self.logs()
            time.sleep(0.02)

    def kill(self, role: str, index: int) -> None:
        self.lab.fault("rank-crash", f"{self.job_id}:{index}", run_dir=self.job_dir / role)

    def finish(self) -> tuple[float, float]:
        """The AUC of the job, and that of plain training."""
        out, _ = self._process.communicate(timeout=240)
        found = re.search(r"AUC (\S+) hybrid, (\S+) plain", out)
        assert found and self._process.returncode == 0, out + self.logs()
        return float(found[1]), float(found[2])

    def starts(self, role: str, index: int) -> int:
        """How often a replica was started."""
        return len(list((self.job_dir / role).glob(f"attempt*/rank{index}.pid")))

    def node_of(self, role: str, index: int) -> str:
        """The node on which a replica was started last."""
        pids = sorted((self.job_dir / role).glob(f"attempt*/rank{index}.pid"), key=lambda path: path.stat().st_mtime)
        return pids[-1].read_text().split()[2]

    def logs(self) -> str:
        """What the job left, for a failed test."""
        paths = [*self.job_dir.glob("*.out"), *self.job_dir.glob("*/attempt*/*.err"), *self.job_dir.glob("*.jsonl")]
        return "\n".join(f"--- {path}\n{path.read_text()[-2000:]}" for path in paths)


@pytest.fixture
def start(lab: Lab, tmp_path: Path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def run(*args: str) -> Run:
        runs.append(Run(lab, tmp_path, *args))
        runs[-1].submitted()
        return runs[-1]

    yield run
    for each in runs:
        each.close()


def test_it_learns_what_plain_training_learns(start: Callable[..., Run]) -> None:
    hybrid, plain = start("--steps", "400").finish()
    assert plain > 0.87 and hybrid > plain - TOLERANCE


def test_it_survives_the_death_of_a_loader_a_trainer_and_a_server(start: Callable[..., Run]) -> None:
    run = start()
    run.wait_for_step(100)
    run.kill("loader", 1)
    until(lambda: run.starts("loader", 1) == 2, "the loader starts again")
    run.wait_for_step(200)
    assert [run.starts(role, 0) for role in ROLES] == [1, 1, 1, 1], "a loader restarts alone"
    run.kill("trainer", 1)
    until(lambda: run.starts("trainer", 1) == 2, "the trainer starts again")
    run.wait_for_step(300)
    assert [run.starts(role, 0) for role in ROLES] == [1, 1, 1, 2], "trainers restart together, and nobody else"
    run.kill("embedding", 0)
    hybrid, plain = run.finish()
    assert [run.starts(role, 0) for role in ROLES] == [2, 1, 1, 3], "servers take the trainers back with them"
    assert run.starts("loader", 1) == 2
    assert plain > 0.87 and hybrid > plain - TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("server", [1, 0], ids=["not the supervisor's", "the supervisor's"])
def test_it_survives_the_death_of_their_nodes(start: Callable[..., Run], server: int) -> None:
    run = start("--spares", "1")
    dead = []
    for step, role, index in ((100, "loader", 0), (200, "trainer", 0), (300, "embedding", server)):
        run.wait_for_step(step)
        dead.append(run.node_of(role, index))
        run.lab.fault("node-death", dead[-1])
        until(lambda role=role, index=index: run.node_of(role, index) not in dead, f"{role} {index} moves")
    hybrid, plain = run.finish()
    for node in dead:
        run.lab.fault("node-return", node)
    assert len(set(dead)) == 3
    assert plain > 0.87 and hybrid > plain - TOLERANCE


@pytest.mark.slow
def test_asked_to_stop_it_saves_and_goes_on_after_that_very_step(start: Callable[..., Run]) -> None:
    run = start()
    run.wait_for_step(100)
    # What slurmctld sends before a time limit.
    run.lab.run(["scancel", "--batch", "--signal=USR2", str(run.job_id)])
    hybrid, plain = run.finish()
    first, second = (run.job_dir / "trainer" / f"attempt{attempt}.0" / "rank0.out" for attempt in (0, 1))
    assert "step 600/600" not in first.read_text()
    *_, saved = re.findall(r"step (\d+)/600", first.read_text())
    assert f"2 trainers go on after step {saved}\n" in second.read_text()
    assert plain > 0.87 and hybrid > plain - TOLERANCE
