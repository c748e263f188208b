"""Jobs in control groups, as real clusters have them: nothing that a job starts outlives it, so it must not have to."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from real_lab import wait_for
from trainmaster.lab import jobgroups
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher.follow.job import TrainmasterJob
from trainmaster.launcher.submit.executor import submit
from trainmaster.launcher.submit.spec import JobSpec

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(jobgroups.available() is None, reason="no freezer of control groups version 1, or not root"),
]
COUNTER = Path(__file__).parents[1] / "programs" / "counter.py"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    # Nobody waits for these jobs, so they start again when their credentials have run out: 121 s by default.
    with up(LabSpec(nodes=6, leaf=3, cgroups=True, accounting=True, settings={"AuthInfo": "cred_expire=8"})) as lab:
        yield lab


@pytest.fixture(autouse=True)
def in_the_lab(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", lab.env["SLURM_CONF"])


def counter(folder: Path, steps: int = 60, **spec: Any) -> TrainmasterJob[None]:
    values: dict[str, Any] = {"nodes": 2, "time": 10, "mem": "1G"} | spec
    return submit([sys.executable, str(COUNTER), str(steps)], spec=JobSpec(**values), folder=folder)


def queued(lab: Lab, job_id: str, key: str) -> str:
    shown = subprocess.run(
        ["scontrol", "show", "job", job_id], env=lab.env, capture_output=True, text=True, check=True, timeout=60
    ).stdout
    return dict(word.partition("=")[::2] for word in shown.split()).get(key, "")


def test_nothing_outlives_a_job_here(lab: Lab, tmp_path: Path) -> None:
    left = f"sleep {600 + time.time_ns() % 1000}"
    script = f"#!/bin/sh\n(setsid {left} &)\nsleep 1\n"
    subprocess.run(
        ["sbatch", "--wait", f"--output={tmp_path}/out"], input=script, text=True, env=lab.env, check=True, timeout=60
    )
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert left not in running.splitlines()


def test_a_job_that_nobody_waits_for_is_requeued_although_nothing_outlives_it(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy slurmctld: what is not asked for before the job's end is not asked for at all.
    slow = tmp_path / "bin" / "scontrol"
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/sh\nsleep 1\nexec {shutil.which("scontrol")} "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    job = counter(tmp_path)
    victim = wait_for(job, "PROGRESS").nodes[1]
    lab.fault("node-death", victim)
    assert wait_for(job, "REQUEUED").detail["excluded"] == [victim]
    again = wait_for(job, "RUNNING", count=2)
    assert again.attempt == 1 and victim not in again.nodes
    assert victim in queued(lab, job.job_id, "ExcNodeList"), "who releases a job is not there to say what to leave out"
    assert wait_for(job, "SUCCEEDED").step == 59


def test_a_job_is_requeued_from_outside(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path, nodes=1, steps=1_000_000)
    wait_for(job, "PROGRESS")
    subprocess.run([sys.executable, "-m", "trainmaster", "jobs", "requeue", job.job_id], check=True, timeout=60)
    assert wait_for(job, "RUNNING", count=2).attempt == 1
    job.cancel()
    assert wait_for(job, "CANCELLED")


def test_a_spare_takes_over_here_too(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path, spares=1)
    first = wait_for(job, "PROGRESS")
    lab.fault("node-death", first.nodes[1])
    again = wait_for(job, "RUNNING", count=2)
    assert (again.attempt, again.cycle) == (0, 1) and set(again.nodes) == {first.nodes[0], *first.spares}
    assert wait_for(job, "SUCCEEDED").step == 59


def test_a_supervisor_that_waits_for_slurmctld_is_not_taken_for_dead(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path, heartbeat_timeout_s=3.0)
    victim = wait_for(job, "PROGRESS").nodes[1]
    lab.fault("slurmctld-freeze")
    try:
        lab.fault("node-death", victim)
        # Longer than any agent waits for a sign of life.
        time.sleep(12)
    finally:
        lab.fault("slurmctld-thaw")
    again = wait_for(job, "RUNNING", count=2)
    assert again.attempt == 1 and victim not in again.nodes
    assert wait_for(job, "SUCCEEDED").step == 59
    assert [event.state for event in job.events() if event.attempt == 0].count("STARTING") == 1
    assert [(event.attempt, event.state) for event in job.events()].count((0, "REQUEUED")) == 1
    logs = [path.read_text() for path in job.run_dir.glob("agent-*.log")]
    assert not any("lost the supervisor" in text for text in logs), logs
