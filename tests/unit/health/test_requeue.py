"""Which jobs are requeued when their node has lost a GPU or an adapter, and which never."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster.health import requeue
from trainmaster.health.finding import Action, Finding, Verdict
from trainmaster.health.requeue import Running

BOOT = "b1"
GPU = Finding("gpu.present", Verdict.FAIL, Action.DRAIN_REQUEUE, "0000:00:07.0", "fell off")
ADAPTER = Finding("ib.present", Verdict.FAIL, Action.DRAIN_REQUEUE, "mlx5_3", "missing")
ECC = Finding("gpu.ecc.uncorr", Verdict.FAIL, Action.DRAIN_RESET, "0000:00:07.0", "3")
JOB = Running("7", "7", "RUNNING", True, True, 2, True)
REASON = "[HC] gpu.present: fell off on 0000:00:07.0"


def asked(job: Running, *findings: Finding, launched: tuple[str, ...] = (), memory: Any = None) -> str:
    """The check for which it is requeued, or why not."""
    memory = requeue.opened(memory or {}, findings, BOOT, 100.0)
    cause, why_not = requeue.verdict(job, requeue.due(memory, findings, BOOT, 100.0), launched, memory)
    assert bool(cause) != bool(why_not)
    return cause.split("|")[1] if cause else why_not


def test_a_job_that_uses_what_is_lost_is_requeued() -> None:
    assert asked(JOB, GPU) == "gpu.present" and asked(JOB, ECC, ADAPTER) == "ib.present"
    assert asked(JOB._replace(nodes=1), GPU) == "gpu.present"
    assert asked(JOB._replace(gpus=False), GPU, ADAPTER) == "ib.present"


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (JOB._replace(requeue=False), "Requeue=0"),
        (JOB._replace(batch=False), "no batch job"),
        (JOB._replace(state="COMPLETING"), "COMPLETING"),
        (JOB._replace(state="CONFIGURING"), "CONFIGURING"),
        (JOB._replace(gpus=False), "does not use"),
        (JOB._replace(job="8", leader="9"), "launcher"),
    ],
)
def test_who_is_left_alone(job: Running, words: str) -> None:
    assert words in asked(job, GPU, launched=("9",))


def test_an_adapter_is_nothing_to_a_job_on_one_node() -> None:
    assert "does not use" in asked(JOB._replace(nodes=1), ADAPTER)


def test_each_job_once_for_a_cause() -> None:
    memory = {f"{BOOT}|{GPU.key}": {"since_s": 90.0, "jobs": ["7"]}}
    assert "before" in asked(JOB, GPU, memory=memory)
    assert asked(JOB._replace(job="8", leader="8"), GPU, memory=memory) == "gpu.present"


def test_a_cause_is_closed_after_minutes_and_forgotten_at_a_boot() -> None:
    memory = requeue.opened({}, [GPU], BOOT, 100.0)
    assert requeue.due(memory, [GPU], BOOT, 100.0 + requeue.OPEN_S) != []
    assert requeue.due(memory, [GPU], BOOT, 101.0 + requeue.OPEN_S) == []
    assert requeue.due(memory, [GPU], BOOT, 50.0) == [], "a clock that was set back opens nothing"
    assert requeue.due(memory, [], BOOT, 100.0) == [] and requeue.due(memory, [ECC], BOOT, 100.0) == []
    assert list(requeue.opened(memory, [GPU], "b2", 900.0)) == [f"b2|{GPU.key}"]


@given(st.dictionaries(st.text(), st.none() | st.integers() | st.dictionaries(st.text(), st.text())))
def test_a_damaged_memory_is_no_reason_to_fail(memory: dict[str, Any]) -> None:
    spoiled = memory | {f"{BOOT}|{GPU.key}": {"since_s": "x", "jobs": 7}}
    assert asked(JOB, GPU, memory=spoiled) == "gpu.present"


@given(st.text())
def test_whatever_slurm_prints(text: str) -> None:
    job = requeue.job_of(text)
    assert job is None or job.job.isdecimal()


def test_the_form_of_22_05() -> None:
    line = (
        "JobId=12 JobName=train.sh UserId=u(1000) Priority=1 JobState=RUNNING Reason=None Dependency=(null) Requeue=1 "
        "Restarts=0 BatchFlag=1 Reboot=0 NumNodes=4 NumCPUs=8 TRES=cpu=8,mem=4G,node=4 TresPerNode=gres:gpu:8\n"
    )
    assert requeue.job_of(line) == Running("12", "12", "RUNNING", True, True, 4, True)
    part = line.replace("JobId=12", "JobId=13 HetJobId=12 HetJobOffset=1").replace(" TresPerNode=gres:gpu:8", "")
    assert requeue.job_of(part) == Running("13", "12", "RUNNING", True, True, 4, False)
    assert requeue.job_of("slurm_load_jobs error: Invalid job id specified") is None


def test_jobs_of_our_launcher_are_known_by_their_processes() -> None:
    code = "import sys; sys.stdin.read()  # trainmaster.launcher"
    env = {"SLURM_JOB_ID": "4711", "SLURM_CONF": "/one/slurm.conf"}
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdin=subprocess.PIPE) as child:
        try:
            while b"launcher" not in Path(f"/proc/{child.pid}/cmdline").read_bytes():
                pass
            assert "4711" in requeue.launched_here(conf="/one/slurm.conf")
            assert "4711" not in requeue.launched_here(conf="/another/slurm.conf")
        finally:
            child.kill()


def slurm(folder: Path, *, reason: str = REASON, requeue_rc: int = 0) -> Path:
    """Commands that answer, and write down what they were asked."""
    folder.mkdir(exist_ok=True)
    log = folder / "asked"
    node = f"NodeName=n01 State=IDLE+DRAIN Reason={reason} [root@2026-11-23T10:00:00]"
    job = "JobId=7 JobState=RUNNING Requeue=1 BatchFlag=1 NumNodes=1 TresPerNode=gres:gpu:2"
    text = f"""#!/bin/sh
echo "$@" >> {log}
case "$*" in
*"show node"*) echo '{node}';;
*"show job"*) echo '{job}';;
requeue*) exit {requeue_rc};;
esac
"""
    (folder / "scontrol").write_text(text)
    (folder / "squeue").write_text("#!/bin/sh\necho 7\n")
    for name in ("scontrol", "squeue"):
        (folder / name).chmod(0o755)
    return log


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *findings: Finding, **given: Any) -> str:
    slurm(tmp_path / "bin", **given)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_CONF", str(tmp_path))
    return requeue.requeue(findings, folder=str(tmp_path / "state"), node="n01", boot_id=BOOT, reason=REASON)


def test_it_is_written_down_before_slurm_is_asked_and_never_done_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "could not requeue 7" in run(tmp_path, monkeypatch, GPU, requeue_rc=1)
    assert json.loads((tmp_path / "state" / requeue.FILE).read_text())[f"{BOOT}|{GPU.key}"]["jobs"] == ["7"]
    assert "before" in run(tmp_path, monkeypatch, GPU)
    text = (tmp_path / "bin/asked").read_text()
    assert (
        text.count("requeue Incomplete 7") == 1
        and f"AdminComment=trainmaster: requeued, since n01 was drained: {REASON}" in text
    )


def test_a_node_that_was_resumed_or_taken_over_loses_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(tmp_path, monkeypatch, GPU, reason="bad DIMM") == ""
    assert "requeue" not in (tmp_path / "bin/asked").read_text()


def test_a_state_that_cannot_be_written_requeues_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    assert "cannot be written" in run(tmp_path, monkeypatch, GPU)
    assert "requeue 7" not in (tmp_path / "bin/asked").read_text()
