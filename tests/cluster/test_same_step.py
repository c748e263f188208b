"""Ranks that ask for orders end at the same step, on a real cluster, and the requeued job goes on from there."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import real_lab
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher import record
from trainmaster.launcher.submit.executor import submit
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.slurm.commands import Commands

pytestmark = pytest.mark.cluster
PROGRAM = Path(__file__).parents[1] / "programs" / "collective.py"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with up(LabSpec(nodes=3)) as made:
        yield made


def test_a_warning_stops_all_ranks_after_one_step(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", lab.env["SLURM_CONF"])
    spec = JobSpec(nodes=3, tasks_per_node=2, time=10)
    job = submit([sys.executable, str(PROGRAM), "5", "--until-asked"], spec=spec, folder=tmp_path / "jobs")
    real_lab.until(
        lambda: (record.last_step(job.run_dir, record.read(job.run_dir)) or 0) > 20, "the run flows", timeout_s=120
    )
    # What Slurm does at the time that `--signal=B:USR2@...` names.
    lab.run(["scancel", "--signal=USR2", "--batch", str(job.job_id)])
    assert job.exception() is None
    said = [(job.run_dir / "attempt0.0" / f"rank{rank}.out").read_text() for rank in range(6)]
    saves = [re.findall(r"saves after (\d+)", text) for text in said]
    assert len(saves[0]) == 1 and all(found == saves[0] for found in saves), saves
    again = (job.run_dir / "attempt1.0" / "rank0.out").read_text()
    assert f"starts at {int(saves[0][0]) + 1} because of" in again
    events = record.read(job.run_dir)
    assert [event.state for event in events if event.state in ("REQUEUED", "SUCCEEDED")] == ["REQUEUED", "SUCCEEDED"]
    assert not any(event.state == "RESTARTING" for event in events)


SLOW_START = """
import os, sys, time, trainmaster
print("begins", flush=True)
time.sleep(4)
for step in range(300):
    time.sleep(0.1)
    trainmaster.step(step)
    if trainmaster.should_stop():
        print("stops after", step, flush=True)
        sys.exit(75 if os.environ["TRAINMASTER_ATTEMPT"] == "0" else 0)
    if os.environ["TRAINMASTER_ATTEMPT"] != "0":
        break
"""


def test_a_warning_in_the_first_step_is_not_lost(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", lab.env["SLURM_CONF"])
    (tmp_path / "slow.py").write_text(SLOW_START)
    job = submit([sys.executable, str(tmp_path / "slow.py")], spec=JobSpec(nodes=2, time=10), folder=tmp_path / "jobs")
    logs = [job.run_dir / "attempt0.0" / f"rank{rank}.out" for rank in range(2)]
    real_lab.until(lambda: all(log.exists() and "begins" in log.read_text() for log in logs), "it has begun")
    lab.run(["scancel", "--signal=USR2", "--batch", str(job.job_id)])
    assert job.exception() is None
    stops = [re.findall(r"stops after (\d+)", log.read_text()) for log in logs]
    assert len(stops[0]) == 1 and stops[0] == stops[1], stops
    assert int(stops[0][0]) < 100
    assert [event.state for event in record.read(job.run_dir)].count("REQUEUED") == 1


SLOW_SAVE = """
import os, signal, sys, time
from pathlib import Path
import trainmaster
asked = []
signal.signal(signal.SIGUSR2, lambda *_: asked.append(1))
rank, attempt = os.environ["RANK"], os.environ["TRAINMASTER_ATTEMPT"]
for step in range(100000):
    time.sleep(0.05)
    trainmaster.step(step)
    if attempt == "1" and step == 5:
        break
    if asked:
        time.sleep(1.0)
        Path(os.environ["TRAINMASTER_RUN_DIR"], f"saved{attempt}-{rank}").write_text(str(step))
        sys.exit(75)
"""


@pytest.mark.parametrize("verb", ["cancel", "requeue"])
def test_who_cancels_or_requeues_lets_the_ranks_save(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """Slurm's own SIGTERM reaches the ranks with the supervisor, and ended them before they could."""
    monkeypatch.setenv("SLURM_CONF", lab.env["SLURM_CONF"])
    program = tmp_path / "slow_save.py"
    program.write_text(SLOW_SAVE)
    job = submit([sys.executable, str(program)], spec=JobSpec(nodes=3, time=10), folder=tmp_path / "jobs")
    events = lambda: record.read(job.run_dir)  # noqa: E731
    real_lab.until(lambda: any(event.state == "PROGRESS" for event in events()), "the run flows", timeout_s=120)
    argv = [sys.executable, "-m", "trainmaster", "jobs", verb, "--folder", str(tmp_path / "jobs"), str(job.job_id)]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert said.returncode == 0, said.stderr
    saved = sorted(path.name for path in job.run_dir.glob("saved0-*"))
    assert saved == ["saved0-0", "saved0-1", "saved0-2"]
    if verb == "cancel":
        assert f"job {job.job_id}: CANCELLED" in said.stdout
        assert job.state == "CANCELLED"
        client = Commands(env=lab.env)
        real_lab.until(lambda: (known := client.job(int(job.job_id))) is None or not known.active, "Slurm knows it")
        known = client.job(int(job.job_id))
        assert known is not None and known.state == "CANCELLED"
    else:
        assert job.exception() is None
        assert [event.state for event in events() if event.state in ("REQUEUED", "SUCCEEDED")] == [
            "REQUEUED",
            "SUCCEEDED",
        ]
        assert next(event for event in events() if event.state == "REQUEUED").cause == "requeue"
