"""The installed hooks in real slurmds: what breaks on a node drains it, refuses jobs, and ends with its repair."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from real_hooks import mend, shown, write_profile
from real_lab import Watched, until
from trainmaster.cli import main
from trainmaster.lab import fakehost, fakeroot
from trainmaster.lab.cluster import Lab, LabSpec, up

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
# A uid that nobody has here: no name, no process.
SOMEBODY = 54321


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    # Not pytest's: munge and a job's user have to be let in.
    with tempfile.TemporaryDirectory(prefix="tm-hooks-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def lab(base: Path) -> Iterator[Lab]:
    folder, prefix = base / "health-hooks", base / "opt"
    words = [f"--slurm-conf={folder}/slurm.conf", f"--root={folder}/nodes/$SLURMD_NODENAME/root"]
    words += [f"--log={folder}/health.log", f"--textfile={folder}/nodes/$SLURMD_NODENAME/health.prom"]
    assert main(["install", "hooks", f"--prefix={prefix}", *words]) == 0
    lines = (prefix / "slurm.conf.fragment").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    settings["HealthCheckInterval"] = "2"
    subprocess.run(["make", "-s", "-C", str(ROOT), "spank", f"SPANK={base}/trainmaster.so"], check=True)
    (base / "plugstack.conf").write_text(f"required {base}/trainmaster.so\n")
    settings["PlugStackConfig"] = f"{base}/plugstack.conf"
    with up(LabSpec(nodes=4, gpus=2, folder=folder, settings=settings)) as lab:
        for name in lab.node_names:
            write_profile(lab, name)
        yield lab


@pytest.fixture
def watched(lab: Lab, tmp_path: Path) -> Watched:
    return Watched(lab, tmp_path)


def reason(lab: Lab, name: str) -> str:
    text = shown(lab, name)
    return text.partition(" Reason=")[2] if "+DRAIN" in text else ""


def test_doctor_finds_nothing_that_the_hooks_would_miss(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(lab.conf))
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert " 0 faults" in said and "HealthCheckInterval=2 sec" in said


@pytest.mark.parametrize(
    "faults",
    [
        {"gpu-xid": "gpu.xid: 95", "gpu-lost": "gpu.present: fell off", "gpu-ecc": "gpu.ecc.uncorr: 3"},
        {"row-remap": "gpu.remap.failure", "nvidia-smi-hang": "gpu.hung: no answer", "ib-down": "ib.state: DOWN"},
        {"ib-flap": "ib.counters: link down 4", "ib-errors": "ib.counters: local_", "mount-stale": "fs.alive: "},
    ],
    ids=lambda faults: ",".join(faults),
)
def test_each_fault_drains_its_node_and_its_repair_resumes_it(lab: Lab, faults: dict[str, str]) -> None:
    # Three at a time: more would be a storm.
    nodes = dict(zip(faults, lab.node_names, strict=False))
    for name in nodes.values():
        # A first pass has to have seen the counters, or what they show is only a baseline.
        state = lab.root(name) / "var/lib/trainmaster/health/state.json"
        until(lambda state=state: state.exists() and "ib.counters" in state.read_text(), "a pass")  # type: ignore[misc]
    for fault, name in nodes.items():
        lab.fault(fault, name)
    for fault, words in faults.items():
        until(lambda f=fault, w=words: f"[HC] {w}" in reason(lab, nodes[f]), f"{fault} drains")  # type: ignore[misc]
    assert reason(lab, "n04") == ""
    mend(lab, *nodes.values())


@pytest.mark.skipif(os.geteuid() != 0, reason="a full disk needs a mount")
def test_a_full_disk_drains(lab: Lab) -> None:
    lab.fault("disk-full", "n01")
    until(lambda: "[HC] fs.usage: 100% full on /tmp" in reason(lab, "n01"), "n01 drains")
    mend(lab, "n01")
    assert not (lab.root("n01") / "tmp/full").exists()


def test_a_warning_goes_into_the_nodes_comment_and_to_the_user(lab: Lab) -> None:
    lab.run(["scontrol", "update", "NodeName=n02", "Comment=bad fan, ticket 8"])
    lab.fault("clock-skew", "n01,n02")
    until(lambda: " Comment=[HC] time.sync: the clock is not synchronised" in shown(lab, "n01"), "a comment")
    assert "+DRAIN" not in shown(lab, "n01")
    until(lambda: (lab.root("n02") / "var/lib/trainmaster/health/remark.json").exists(), "n02 looked, too")
    assert " Comment=bad fan, ticket 8" in shown(lab, "n02")
    said = lab.run(["srun", "--nodelist=n01", "--ntasks=2", "--mem=10", "echo", "hello"]).stdout
    assert sorted(line.partition(" (off")[0] for line in said.splitlines()) == [
        "hello", "hello", "trainmaster: n01: time.sync: the clock is not synchronised"
    ]  # fmt: skip
    prometheus = (lab.folder / "nodes/n01/health.prom").read_text()
    assert 'trainmaster_health_verdict{check="time.sync"} 1' in prometheus
    lab.fault("health-mend", "n01,n02")
    lab.run(["scontrol", "update", "NodeName=n02", "Comment="])


def test_the_prolog_refuses_a_job_that_slurm_then_moves(lab: Lab, watched: Watched) -> None:
    off = lab.root("n04") / "etc/trainmaster/health.d/off"
    off.mkdir(parents=True, exist_ok=True)
    # Only the prolog is to find it.
    (off / "health_check_program").touch()
    lab.fault("gpu-ecc", "n04")
    job = watched.submit("hostname; echo ran on $SLURMD_NODENAME", "--nodelist=n04")
    until(lambda: " Restarts=1 " in lab.run(["scontrol", "-o", "show", "job", str(job)]).stdout, "the job is refused")
    # Slurm's own "Prolog error" does not replace the cause.
    assert "[HC] gpu.ecc.uncorr: 3 uncorrectable on 0000:00:07.0" in reason(lab, "n04")
    text = lab.run(["scontrol", "-o", "show", "job", str(job)]).stdout
    assert "AdminComment=trainmaster: n04 was drained, and this job is moved: [HC] gpu.ecc.uncorr" in text
    assert "JobHeld" not in text
    until(lambda: watched.job(job).state == "PENDING", "the job waits")
    # Slurm lets a requeued job wait for two minutes; an operator need not.
    lab.run(["scontrol", "update", f"JobId={job}", "ReqNodeList=", "StartTime=now"])
    until(lambda: "ran on n0" in watched.output(job), "the job runs elsewhere")
    assert "ran on n04" not in watched.output(job)


def test_a_script_that_asks_for_full_has_its_node_looked_at_more_closely(lab: Lab, watched: Watched) -> None:
    root = lab.root("n03")
    off = root / "etc/trainmaster/health.d/off/health_check_program"
    off.parent.mkdir(parents=True, exist_ok=True)
    # Only the prolog is to find it, and its hour might be now.
    off.touch()
    state = fakeroot.read_state(root)
    state["gpus"][1]["values"]["inforom.checksum_validation"] = "corrupt"
    fakeroot.write_state(root, state)
    told = root / "var/lib/trainmaster/health"
    for word, seen in (("fast", False), ("full", True)):
        job = watched.submit(f"#SBATCH --tm-health={word}\necho ran on $SLURMD_NODENAME", "--nodelist=n03")
        until(lambda job=job: "ran on n03" in watched.output(job), "a warning refuses nobody")  # type: ignore[misc]
        assert any("infoROM is corrupt" in path.read_text() for path in told.glob("*.json*")) == seen
    off.unlink()
    mend(lab, "n03")


def test_who_resumes_a_node_by_hand_gets_jobs_on_it(lab: Lab, watched: Watched) -> None:
    lab.run(["scontrol", "update", "NodeName=n04", "State=RESUME"])
    job = watched.submit("echo ran on $SLURMD_NODENAME", "--nodelist=n04")
    until(lambda: "ran on n04" in watched.output(job), "the job runs where the admin wants it to")
    assert watched.job(job).state in ("RUNNING", "COMPLETING", "COMPLETED")
    # And with the prolog switched off nothing at all happens, whatever is broken.
    lab.fault("gpu-lost", "n04")
    (lab.root("n04") / "etc/trainmaster/health.d/off/prolog").touch()
    other = watched.submit("echo ran on $SLURMD_NODENAME", "--nodelist=n04")
    until(lambda: "ran on n04" in watched.output(other), "the job runs, unseen")
    (lab.root("n04") / "etc/trainmaster/health.d/off/prolog").unlink()
    (lab.root("n04") / "etc/trainmaster/health.d/off/health_check_program").unlink()
    mend(lab, "n04")


def test_a_job_that_cannot_go_on_is_requeued_once_and_others_are_left_alone(lab: Lab, watched: Watched) -> None:
    path = lab.root("n02") / "etc/trainmaster/health.json"
    before = path.read_text()
    path.write_text(before.replace("{", '{"requeue": true, ', 1))
    words = ("--nodelist=n02", "--gres=gpu:1")
    doomed, kept, cpus = (
        watched.submit("echo begun; sleep 600", *words),
        watched.submit("echo begun; sleep 600", *words, "--no-requeue"),
        watched.submit("echo begun; sleep 600", "--nodelist=n02"),
    )
    for job in (doomed, kept, cpus):
        # A job whose prolog still runs would be refused by it.
        until(lambda job=job: "begun" in watched.output(job), f"job {job} has begun")  # type: ignore[misc]
    lab.fault("gpu-lost", "n02")
    until(lambda: "[HC] gpu.present: fell off" in reason(lab, "n02"), "n02 drains")
    until(lambda: f"requeued job {doomed}" in (lab.folder / "health.log").read_text(), "its job is requeued")
    until(lambda: watched.job(doomed).state == "PENDING", "the job waits for another node")
    text = lab.run(["scontrol", "-o", "show", "job", str(doomed)]).stdout
    assert " Restarts=1 " in text and "AdminComment=trainmaster: requeued, since n02 was drained: [HC] gpu.pres" in text
    state = lab.root("n02") / "var/lib/trainmaster/health/state.json"
    passes = json.loads(state.read_text())["passes"]
    until(lambda: json.loads(state.read_text())["passes"] >= passes + 2, "two more passes")
    assert [watched.job(job).state for job in (kept, cpus)] == ["RUNNING", "RUNNING"]
    said = (lab.folder / "health.log").read_text()
    assert f"left job {kept} alone: it is not to be requeued" in said
    assert f"left job {cpus} alone: it does not use what is lost" in said and said.count("requeued job") == 1
    for job in (doomed, kept, cpus):
        watched.client.cancel(job)
    path.write_text(before)
    mend(lab, "n02")


def epilog(lab: Lab, node: str, job: int, path: str = "") -> None:
    """As slurmd runs it after a job of somebody's."""
    env = {"PATH": path + "/usr/bin:/bin"}
    env |= {"SLURMD_NODENAME": node, "SLURM_JOB_ID": str(job), "SLURM_JOB_UID": str(SOMEBODY), "SLURM_JOB_GPUS": "0,1"}
    hook = lab.folder.parent / "opt/hooks/epilog"
    assert subprocess.run([hook], env=env, check=False, timeout=60).returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="processes of somebody else need root")
def test_the_epilog_ends_what_the_user_left_and_drains_for_what_stays(lab: Lab, tmp_path: Path) -> None:
    root = lab.root("n03")
    left = subprocess.Popen(["/bin/sleep", "600"], user=SOMEBODY, group=SOMEBODY, start_new_session=True)
    try:
        # The fake root of a node shows no process but those that a test lets it see.
        (root / "proc" / str(left.pid)).symlink_to(f"/proc/{left.pid}")
        shared = root / "dev/shm/torch_1"
        shared.parent.mkdir()
        shared.write_bytes(bytes(100))
        os.chown(shared, SOMEBODY, SOMEBODY)
        (shared.parent / "of_root").touch()
        for answer in (f"echo 77 {SOMEBODY}; echo 999 {SOMEBODY}", "exit 1"):
            # The user has another job here, or slurmctld does not say.
            (tmp_path / "squeue").write_text(f"#!/bin/sh\n{answer}\n")
            (tmp_path / "squeue").chmod(0o755)
            epilog(lab, "n03", 999, path=f"{tmp_path}:")
            assert left.poll() is None and shared.exists()
        epilog(lab, "n03", 999)
        assert left.wait(timeout=30) == -9
        assert not shared.exists() and (shared.parent / "of_root").exists()
        assert reason(lab, "n03") == ""
    finally:
        left.kill()
        left.wait()
    state = fakeroot.read_state(root)
    state["gpus"][1]["values"]["memory.used"] = "4000"
    fakeroot.write_state(root, state)
    epilog(lab, "n03", 999)
    assert "[HC] gpu.leftover: 4000 MiB still in use on 0000:00:07.0" in reason(lab, "n03")


def test_what_a_node_went_through_is_written_down(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["health", "history", f"--root={lab.root('n01')}"]) == 0
    said = capsys.readouterr().out
    for words in ("began   gpu.xid 0000:00:07.0", "drain n01", "booted", "ended   gpu.xid", "resume n01"):
        assert words in said, words
    assert "Traceback" not in (lab.folder / "health.log").read_text()


def test_uninstall_leaves_nothing(lab: Lab) -> None:
    prefix = lab.folder.parent / "opt"
    assert main(["install", "hooks", "--uninstall", f"--prefix={prefix}"]) == 1, "slurm.conf still names them"
    assert (prefix / "hooks/prolog").exists()
    assert main(["install", "hooks", "--uninstall", "--force", f"--prefix={prefix}"]) == 0
    assert not prefix.exists()
    assert fakehost.adapters(lab.root("n01"))
