"""The examples on a real cluster: what a fault does to training, which must be nothing."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher.follow.job import TrainmasterJob
from trainmaster.launcher.submit.executor import submit
from trainmaster.launcher.submit.spec import JobSpec

pytestmark = pytest.mark.cluster

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
STEPS = 240
SMALL = ["--d-model", "32", "--layers", "2", "--batch", "4", "--checkpoint-every", "16", "--steps", str(STEPS)]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with up(LabSpec(nodes=4)) as lab:
        yield lab


@pytest.fixture(autouse=True)
def on_the_lab(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", str(lab.conf))


def train(folder: Path, spec: JobSpec) -> TrainmasterJob[Any]:
    program = [sys.executable, str(EXAMPLES / "tiny_gpt" / "train.py"), *SMALL]
    files = ["--checkpoint-dir", str(folder / "checkpoints"), "--metrics", str(folder / "metrics.jsonl")]
    return submit([*program, *files], spec=spec, folder=folder / "jobs")


def metrics(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for_step(folder: Path, job: TrainmasterJob[Any], step: int) -> None:
    deadline = time.monotonic() + 120
    while not any(line["step"] >= step for line in metrics(folder)):
        assert not job.done() and time.monotonic() < deadline, job.events()
        time.sleep(0.05)


def test_a_run_with_faults_computes_what_a_run_without_computes(lab: Lab, tmp_path: Path) -> None:
    quiet, troubled = tmp_path / "quiet", tmp_path / "troubled"
    job = train(quiet, JobSpec(nodes=2, time=10))
    assert job.exception() is None

    job = train(troubled, JobSpec(nodes=2, spares=1, time=10))
    wait_for_step(troubled, job, 60)
    running = next(event for event in job.events() if event.state == "RUNNING")
    supervisor = next(event.detail["node"] for event in job.events() if event.state == "STARTING")
    lab.fault("node-death", next(node for node in running.nodes if node != supervisor))
    wait_for_step(troubled, job, 140)
    lab.fault("rank-crash", f"{job.job_id}:0")
    assert job.exception() is None
    causes = [event.cause for event in job.events() if event.state == "RESTARTING"]
    assert causes == ["node_death", "rank_crash"]
    assert {(line["attempt"], line["cycle"]) for line in metrics(troubled)} == {(0, 0), (0, 1), (0, 2)}

    # By step; a step that was computed twice must have come out the same both times.
    expected = {line["step"]: line["loss"] for line in metrics(quiet)}
    assert set(expected) == set(range(1, STEPS + 1))
    assert {line["step"] for line in metrics(troubled)} == set(expected)
    assert [line for line in metrics(troubled) if line["loss"] != expected[line["step"]]] == []
    newest = f"step_{STEPS:08d}"
    for share in sorted((quiet / "checkpoints" / newest).glob("*.distcp")):
        assert (troubled / "checkpoints" / newest / share.name).read_bytes() == share.read_bytes()
    lab.fault("node-return", next(event.dead[0] for event in job.events() if event.dead))


def test_quickstart(lab: Lab, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "quickstart.py")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(" on ")[0] for line in lines] == ["hello world, from rank 0", "hello world, from rank 1"]
    nodes = {line.partition(" on ")[2] for line in lines}
    assert len(nodes) == 2 and nodes <= set(lab.node_names)
