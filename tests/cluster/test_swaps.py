"""A running job leaves nodes without a requeue: on a person's wish, and refused where it cannot."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import real_lab
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher.follow.job import TrainmasterJob
from trainmaster.launcher.submit.executor import submit
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.slurm.commands import Commands

pytestmark = pytest.mark.cluster
PROGRAM = Path(__file__).parents[1] / "programs" / "paced.py"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with up(LabSpec(nodes=4, settings={"KillWait": "5"})) as made:
        yield made


def swap(lab: Lab, job: TrainmasterJob[Any], *words: str) -> tuple[int, dict[str, Any]]:
    argv = [sys.executable, "-m", "trainmaster", "jobs", "swap", "--json", "--folder", str(job.run_dir.parent)]
    done = subprocess.run(
        [*argv, str(job.job_id), *words],
        env={**os.environ, **lab.env},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_a_person_has_a_job_leave_a_node_and_slurm_gets_it_back(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", lab.env["SLURM_CONF"])
    spec = JobSpec(nodes=2, spares=1, time=10, stop_grace_s=0.5)
    job = submit([sys.executable, str(PROGRAM), "100000"], spec=spec, folder=tmp_path / "jobs")
    first = real_lab.wait_for(job, "RUNNING")
    real_lab.wait_for(job, "PROGRESS")
    client = Commands(env=lab.env)
    (batch, old), (spare,) = first.nodes, first.spares
    code, told = swap(lab, job, batch)
    assert (code, told["answer"]) == (1, "refused") and "batch script" in told["why_not"]
    code, told = swap(lab, job, old, "--reason", "a loud fan")
    assert (code, told["answer"], told["given_back"]) == (0, "swapped", True)
    # The job goes on where it was, from its checkpoint, in the same attempt, and the node is free for others.
    again = [event for event in job.events() if event.state == "RUNNING"][-1]
    assert (set(again.nodes), again.attempt, again.cycle, again.cause) == ({batch, spare}, 0, 1, "requested")
    seen = client.job(job.job_id)
    assert seen is not None and (seen.state, seen.restarts) == ("RUNNING", 0)
    assert set(client.hostnames(seen.nodes)) == {batch, spare}
    real_lab.until(lambda: client.nodes(old)[0].state.startswith("IDLE"), "the node is idle")
    (restart,) = [event for event in job.events() if event.state == "RESTARTING"]
    assert (restart.cause, restart.dead) == ("requested", (old,))
    swaps = [event.detail for event in job.events() if event.state == "SWAP" and event.detail["nodes"] == [old]]
    assert [one["answer"] for one in swaps] == ["accepted", "swapped"] and swaps[0]["reason"] == "a loud fan"
    real_lab.wait_for(job, "PROGRESS", count=2)
    # There is no spare left.
    code, told = swap(lab, job, spare)
    assert (code, told["answer"]) == (1, "refused") and "0 spare(s)" in told["why_not"]
    (job.run_dir / "enough").touch()
    assert job.exception() is None
