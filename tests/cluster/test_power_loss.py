"""Nodes with a network of their own: the cable is cut, no reset ever arrives, and the run goes on all the same."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher.follow.job import TrainmasterJob
from trainmaster.launcher.submit.executor import submit
from trainmaster.launcher.submit.spec import JobSpec

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(os.getuid() != 0, reason="network namespaces need root")]

COUNTER = Path(__file__).parents[1] / "programs" / "counter.py"


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    with up(LabSpec(nodes=4, leaf=2, netns=True)) as lab:
        monkeypatch.setenv("SLURM_CONF", lab.env["SLURM_CONF"])
        yield lab


def start(folder: Path) -> TrainmasterJob[None]:
    spec = JobSpec(nodes=3, spares=1, time=10, mem="1G")
    job = submit([sys.executable, str(COUNTER), "80"], spec=spec, folder=folder)
    deadline = time.monotonic() + 60
    while not any(event.state == "PROGRESS" for event in job.events()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return job


@pytest.mark.parametrize("victim", ["a worker's node", "the supervisor's node"])
def test_power_loss(lab: Lab, tmp_path: Path, victim: str) -> None:
    job = start(tmp_path)
    started = next(event for event in job.events() if event.state == "STARTING")
    nodes = next(event for event in job.events() if event.state == "RUNNING").nodes
    host = started.detail["node"]
    node = host if victim == "the supervisor's node" else next(name for name in nodes if name != host)
    lab.fault("power-loss", node)
    assert job.exception() is None
    restarting = next(event for event in job.events() if event.state == "RESTARTING")
    assert restarting.cause in ("node_silent", "node_death", "supervisor_death") and restarting.dead == (node,)
    assert node not in [event for event in job.events() if event.state == "RUNNING"][-1].nodes


def test_a_folder_that_one_node_cannot_see(lab: Lab, tmp_path: Path) -> None:
    """A tmpfs over the folder, in the mount namespace of one node only."""
    folder = tmp_path / "jobs"
    folder.mkdir()
    record = lab.process("slurmd", "n02")
    subprocess.run(
        ["nsenter", f"--target={record.pid}", "--mount", "mount", "-t", "tmpfs", "tmpfs", str(folder)], check=True
    )
    spec = JobSpec(nodes=4, time=10, mem="1G")
    job = submit([sys.executable, str(COUNTER), "10"], spec=spec, folder=folder)
    error = job.exception()
    assert error is not None and "must be on storage that all nodes share" in str(error) and "n02" in str(error)
    assert job.state == "FAILED_INFRA"
