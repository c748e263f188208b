"""Drills on a running job of a real cluster: done as its user, recognised by the job, and followed to the end."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import real_lab
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher import record
from trainmaster.launcher.submit.executor import submit
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.launcher.supervise import suspects

pytestmark = pytest.mark.cluster
PROGRAM = Path(__file__).parents[1] / "programs" / "collective.py"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with up(LabSpec(nodes=4)) as made:
        yield made


def test_every_drill_on_one_job(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", lab.env["SLURM_CONF"])
    spec = JobSpec(nodes=2, spares=2, time=20, hang_timeout_s=3.0, stop_grace_s=0.5, heartbeat_timeout_s=3.0)
    job = submit([sys.executable, str(PROGRAM), "1000000"], spec=spec, folder=tmp_path / "jobs")

    def drill(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "trainmaster", "jobs", "drill", *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=240, check=False)

    def done(*words: str) -> dict[str, Any]:
        told = drill("--json", "--timeout", "200", job.job_id, *words)
        assert told.returncode == 0, told.stderr or told.stdout
        return json.loads(told.stdout)

    def flows() -> bool:
        return (record.last_step(job.run_dir, record.read(job.run_dir)) or 0) > 5

    too_early = drill(job.job_id, "crash")
    assert too_early.returncode == 2 and "a drill needs a job whose ranks run" in too_early.stderr
    real_lab.until(flows, "the ranks take steps", timeout_s=120)
    would = drill("--dry-run", job.job_id, "kill-node")
    assert "srun" in would.stdout and "SIGKILL to all processes of the job on one node" in would.stdout

    first = next(event for event in record.read(job.run_dir) if event.state == "RUNNING").nodes
    batch_host = drill("--node", first[0], job.job_id, "kill-node")
    assert batch_host.returncode == 2 and "the job's batch script runs there" in batch_host.stderr
    assert len(record.read(job.run_dir)[-1].nodes) in (0, 2), "nothing was done by what was refused"

    told = done("crash")
    assert (told["cause"], told["right_cause"], told["target"]) == ("rank_crash", True, f"rank 1 on {first[1]}")
    assert told["new_step_s"] >= told["first_step_s"] > told["running_s"] > 0 and told["step_before"] > 5
    told = done("kill-node")
    assert (told["cause"], told["target"], told["found"]) == ("node_death", first[1], "RESTARTING")
    assert first[1] in told["nodes_before"] and first[1] not in told["nodes_after"]
    told = done("hang")
    assert (told["cause"], told["right_cause"]) == ("hang", True)
    told = done("freeze-node")
    assert (told["cause"], told["right_cause"]) == ("node_silent", True)
    told = done("--grace", "1", "preempt")
    assert (told["cause"], told["found"]) == ("requeue", "REQUEUED")
    assert record.read(job.run_dir)[-1].attempt == 1
    told = done("--grace", "1", "timeout")
    assert (told["cause"], told["found"], told["right_cause"]) == ("requeue", "REQUEUED", True)
    assert told["target"] == "warning, 1 s, requeue" and told["new_step_s"] is not None
    assert record.read(job.run_dir)[-1].attempt == 2
    # A drill is no evidence against a node.
    assert not (job.run_dir / suspects.FILE).exists()
    job.cancel()
    assert job.exception() is not None
    over = drill(job.job_id, "crash")
    assert over.returncode == 2 and "it is CANCELLED" in over.stderr
