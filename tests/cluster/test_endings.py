"""How a job ends that is to end: the ranks save at one step, the record says why, the requeue goes on from there.

What a time limit, a cancel, a lost node and a warning before the first step do stands in `test_same_step`,
`test_recovery` and `test_submitit_faults`.
"""

import getpass
import re
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

pytestmark = pytest.mark.cluster
PROGRAM = Path(__file__).parents[1] / "programs" / "stepper.py"
RANKS = 4


@pytest.fixture(scope="module")
def plain_lab() -> Iterator[Lab]:
    """Preemption by partition, with notice and time to use it, as production has it."""
    with up(LabSpec(nodes=2)) as made:
        yield made


@pytest.fixture
def lab(plain_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setenv("SLURM_CONF", plain_lab.env["SLURM_CONF"])
    return plain_lab


def flowing(folder: Path, **spec: Any) -> TrainmasterJob[Any]:
    """A job of `RANKS` ranks that takes steps until it is told to stop, then ten more after a requeue."""
    values: dict[str, Any] = {"nodes": 2, "tasks_per_node": RANKS // 2, "time": 10, "mem": "900G"} | spec
    program = [sys.executable, str(PROGRAM)]
    job = submit(program, spec=JobSpec(**values), folder=folder)
    real_lab.until(
        lambda: (record.last_step(job.run_dir, record.read(job.run_dir)) or 0) > 20, "the run flows", timeout_s=120
    )
    return job


def saved_at(job: TrainmasterJob[Any]) -> int:
    """The step after which all ranks saved: one, the same for all."""
    said = [(job.run_dir / "attempt0.0" / f"rank{rank}.out").read_text() for rank in range(RANKS)]
    saves = [re.findall(r"saves after (\d+)", text) for text in said]
    assert len(saves[0]) == 1 and all(found == saves[0] for found in saves), saves
    return int(saves[0][0])


def check(job: TrainmasterJob[Any], cause: str) -> None:
    """It ended because of that, at one step, and its requeue went on from the next."""
    assert job.exception() is None
    step = saved_at(job)
    again = (job.run_dir / "attempt1.0" / "rank0.out").read_text()
    assert f"starts at {step + 1} because of" in again
    story = [(event.state, event.cause) for event in record.read(job.run_dir)]
    assert [one for one in story if one[0] == "REQUEUED"] == [("REQUEUED", cause)], story
    assert not [one for one in story if one[0] == "RESTARTING"], story
    (requeued,) = (event for event in record.read(job.run_dir) if event.state == "REQUEUED")
    assert requeued.detail["excluded"] == [] and requeued.dead == ()


def urgent(folder: Path, **spec: Any) -> None:
    """A job that wants all nodes, and is more important."""
    values: dict[str, Any] = {"nodes": 2, "time": 5, "mem": "900G"} | spec
    assert submit([sys.executable, "-c", "pass"], spec=JobSpec(**values), folder=folder).exception() is None


def test_preemption_by_partition_with_notice(lab: Lab, tmp_path: Path) -> None:
    job = flowing(tmp_path)
    urgent(tmp_path, partition="high")
    check(job, "preemption")


def test_preemption_by_partition_without_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm sends SIGTERM to every rank and tells the batch step nothing; there is GraceTime.

    Ranks that ask for orders go on to the step that all of them agree on.
    """
    with up(LabSpec(nodes=2, settings={"SlurmctldParameters": ""})) as made:
        monkeypatch.setenv("SLURM_CONF", made.env["SLURM_CONF"])
        job = flowing(tmp_path)
        urgent(tmp_path, partition="high")
        check(job, "preemption")


@pytest.mark.parametrize("verb", ["scancel", "scontrol requeue"])
def test_an_end_by_slurms_own_commands_saves_too(lab: Lab, tmp_path: Path, verb: str) -> None:
    job = flowing(tmp_path)
    lab.run([*verb.split(), str(job.job_id)])
    if verb == "scancel":
        job.wait()
        assert job.state == "CANCELLED"
        assert saved_at(job) > 20
    else:
        check(job, "requeue")


@pytest.mark.parametrize("runner", ["srun", "torchrun", "mpi"])
def test_ranks_that_slurm_itself_starts_outlive_its_sigterm(lab: Lab, tmp_path: Path, runner: str) -> None:
    """They were gone before the order came, so an end without notice cost all since the last checkpoint."""
    job = flowing(tmp_path, runner=runner)
    lab.run(["scontrol", "requeue", str(job.job_id)])
    check(job, "requeue")


def test_a_notice_of_maintenance(lab: Lab, tmp_path: Path) -> None:
    """Whoever plans maintenance reserves the nodes, and warns the jobs on them."""
    job = flowing(tmp_path)
    made = [
        "ReservationName=firmware",
        "Nodes=n02",
        "StartTime=now+10minutes",
        "Duration=60",
        "Flags=MAINT,IGNORE_JOBS",
    ]
    lab.run(["scontrol", "create", "reservation", *made, "Flags=MAINT,IGNORE_JOBS", f"Users={getpass.getuser()}"])
    try:
        lab.run(["scancel", "--signal=USR2", "--batch", str(job.job_id)])
        real_lab.until(lambda: any(e.state == "REQUEUED" for e in record.read(job.run_dir)), "it is requeued")
    finally:
        lab.run(["scontrol", "delete", "ReservationName=firmware"])
    check(job, "maintenance")


@pytest.mark.slow
def test_the_time_limit(lab: Lab, tmp_path: Path) -> None:
    # Slurm looks every 30 s whether a warning is due, and sends it up to a minute early.
    job = flowing(tmp_path, time=1, checkpoint_signal_s=40)
    check(job, "timeout")


@pytest.mark.slow
@pytest.mark.parametrize("notice", ["preempt_send_user_signal", ""])
def test_preemption_by_qos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notice: str) -> None:
    settings = {"PreemptType": "preempt/qos", "SlurmctldParameters": notice, "AccountingStorageEnforce": "qos"}
    # The partitions' own GraceTime is of no meaning then.
    with up(LabSpec(nodes=2, accounting=True, settings={**settings, "high.PreemptMode": "REQUEUE"})) as made:
        monkeypatch.setenv("SLURM_CONF", made.env["SLURM_CONF"])
        made.run(["sacctmgr", "-i", "modify", "qos", "normal", "set", "GraceTime=30", "PreemptMode=requeue"])
        made.run(["sacctmgr", "-i", "add", "qos", "urgent", "Preempt=normal", "Priority=100"])
        made.run(["sacctmgr", "-i", "modify", "user", getpass.getuser(), "set", "qos=normal,urgent"])
        job = flowing(tmp_path, qos="normal")
        urgent(tmp_path, qos="urgent")
        check(job, "preemption")
