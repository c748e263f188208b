"""Slow nodes on a real cluster: found, exchanged at a checkpoint; and a job that is slow everywhere is left alone."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import real_lab
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher import record
from trainmaster.launcher.follow import slow
from trainmaster.launcher.follow.job import TrainmasterJob
from trainmaster.launcher.submit.executor import submit
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.launcher.supervise import suspects

pytestmark = pytest.mark.cluster
PROGRAM = Path(__file__).parents[1] / "programs" / "paced.py"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with up(LabSpec(nodes=4)) as made:
        yield made


def windows(job: TrainmasterJob[Any]) -> int:
    """How many windows of the running cycle have ended."""
    view = slow.pace_of(job.run_dir)
    return view["windows"] if view is not None else 0


def shown(lab: Lab, job: TrainmasterJob[Any], *options: str) -> str:
    argv = [sys.executable, "-m", "trainmaster", "jobs", "show", *options, "--folder", str(job.run_dir.parent)]
    return subprocess.run([*argv, str(job.job_id)], env=lab.env, capture_output=True, text=True, check=True).stdout


def test_a_slow_node_is_exchanged_at_a_checkpoint_and_a_slow_job_is_not(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", lab.env["SLURM_CONF"])
    spec = JobSpec(
        nodes=3, spares=1, time=10, stragglers="swap", straggler_window_s=1.5, straggler_windows=4, stop_grace_s=0.5
    )
    job = submit([sys.executable, str(PROGRAM), "100000"], spec=spec, folder=tmp_path / "jobs")
    events = lambda: record.read(job.run_dir)  # noqa: E731
    real_lab.until(lambda: windows(job) >= 1, "the run flows", timeout_s=120)
    first = next(event for event in events() if event.state == "RUNNING")
    # Every node is as slow as every other: nobody's fault that one could take out.
    lab.fault("node-slow", ",".join(lab.node_names), share=0.08)
    before = windows(job)
    real_lab.until(lambda: windows(job) >= before + 5, "windows of a slow job", timeout_s=180)
    assert slow.stragglers_of(events()) == []
    lab.fault("node-fast", ",".join(lab.node_names))
    bad = first.nodes[1]
    lab.fault("node-slow", bad, share=0.08)
    real_lab.until(lambda: any(event.state == "RESTARTING" for event in events()), "it is exchanged", timeout_s=180)
    (told,) = slow.stragglers_of(events())
    assert [(one["rank"], one["node"]) for one in told["stragglers"]] == [(1, bad)]
    assert told["answer"] == "swap" and told["stragglers"][0]["excess"] > 0.3
    real_lab.until(lambda: sum(event.state == "PROGRESS" for event in events()) == 2, "it goes on", timeout_s=120)
    restart = next(event for event in events() if event.state == "RESTARTING")
    assert (restart.cause, restart.dead) == ("straggler", (bad,))
    again = [event for event in events() if event.state == "RUNNING"][-1]
    assert set(again.nodes) == {*first.nodes, *first.spares} - {bad}
    # At a checkpoint: every rank saved after the same step, and the next cycle began right there.
    saves = {rank: (job.run_dir / "attempt0.0" / f"rank{rank}.out").read_text() for rank in range(3)}
    steps = {int(found) for text in saves.values() for found in re.findall(r"saves after (\d+)", text)}
    assert len(steps) == 1 and all("saves after" in text for text in saves.values())
    began = (job.run_dir / "attempt0.1" / "rank0.out").read_text()
    assert f"starts at {steps.pop() + 1} because of 'straggler'" in began
    assert f"rank 1 on {bad} takes" in shown(lab, job)
    assert json.loads(shown(lab, job, "--json"))["stragglers"][0]["answer"] == "swap"
    (job.run_dir / "enough").touch()
    assert job.exception() is None
    (line,) = [json.loads(line) for line in (job.run_dir / suspects.FILE).read_text().splitlines()]
    assert line["symptom"] == "straggler" and line["suspects"] == [{"node": bad, "weight": 1.0}]
