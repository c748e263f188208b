"""Ranks that stop moving, on a real cluster: found, explained, restarted."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import real_lab
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher import record
from trainmaster.launcher.follow.job import TrainmasterJob
from trainmaster.launcher.submit.executor import submit
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.launcher.supervise import suspects

pytestmark = pytest.mark.cluster
PROGRAM = Path(__file__).parents[1] / "programs" / "collective.py"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with up(LabSpec(nodes=3)) as made:
        yield made


def restarts(job: TrainmasterJob[Any]) -> list[record.Event]:
    return [event for event in record.read(job.run_dir) if event.state == "RESTARTING"]


def test_a_rank_stuck_in_c_and_a_stopped_one(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", lab.env["SLURM_CONF"])
    spec = JobSpec(nodes=3, time=10, hang_timeout_s=3.0, stop_grace_s=0.5)
    job = submit([sys.executable, str(PROGRAM), "60", "--stuck-at", "8"], spec=spec, folder=tmp_path / "jobs")
    real_lab.until(lambda: len(restarts(job)) == 1, "the stuck rank is found", timeout_s=120)
    first = restarts(job)[0]
    assert first.cause == "hang"
    hang = first.detail["hang"]
    node = next(event for event in record.read(job.run_dir) if event.state == "RUNNING").nodes[1]
    assert hang["suspects"] == [{"rank": 1, "node": node}], hang
    assert hang["ranks"] == [0, 1, 2] and hang["section"] == ""
    stacks = {rank: (job.run_dir / "attempt0.0" / f"rank{rank}.stacks").read_text() for rank in range(3)}
    assert "in stuck_in_c" in stacks[1]
    assert all("in all_reduce" in stacks[rank] for rank in (0, 2))

    def flows() -> bool:
        step = record.last_step(job.run_dir, record.read(job.run_dir))
        running = [event for event in record.read(job.run_dir) if event.state == "PROGRESS"]
        return len(running) == 2 and step is not None and step >= 10

    real_lab.until(flows, "the next cycle is under way", timeout_s=120)
    lab.fault("rank-hang", f"{job.job_id}:2", run_dir=job.run_dir)
    real_lab.until(lambda: len(restarts(job)) == 2, "the stopped rank is found", timeout_s=120)
    second = restarts(job)[1]
    assert second.cause == "hang"
    assert [entry["rank"] for entry in second.detail["hang"]["suspects"]] == [2]
    assert job.exception() is None
    evidence = [json.loads(line) for line in (job.run_dir / suspects.FILE).read_text().splitlines()]
    assert [entry["symptom"] for entry in evidence] == ["hang", "hang"]
    assert evidence[0]["suspects"] == [{"node": node, "weight": 1.0}]
    starts = (job.run_dir / "attempt0.1" / "rank0.out").read_text()
    assert "starts at 8 because of 'hang'" in starts


@pytest.mark.parametrize(
    ("program", "limit"),
    [
        ("import time\nprint('begun', flush=True)\nwhile True: time.sleep(0.001)", "quiet_timeout_s"),
        ("import time\nwhile True: print('still here', flush=True); time.sleep(0.5)", "idle_timeout_s"),
    ],
    ids=["says nothing", "does nothing"],
)
def test_a_program_without_steps(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, limit: str
) -> None:
    monkeypatch.setenv("SLURM_CONF", lab.env["SLURM_CONF"])
    limits: dict[str, Any] = {limit: 6.0}
    spec = JobSpec(nodes=2, time=10, stop_grace_s=0.5, **limits)
    job = submit([sys.executable, "-c", program], spec=spec, folder=tmp_path / "jobs")
    real_lab.until(lambda: len(restarts(job)) == 1, "the hang is found", timeout_s=120)
    hang = restarts(job)[0].detail["hang"]
    assert restarts(job)[0].cause == "hang"
    assert hang["ranks"] == [0, 1]
    assert hang["why"].startswith("no rank has " + ("written" if limit == "quiet_timeout_s" else "used a processor"))
    job.cancel()
    job.wait()
