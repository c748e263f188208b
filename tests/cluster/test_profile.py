"""What a submission takes along, on a real Slurm: defaults, environment, secrets, a copy of the code, remarks."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.real_lab import until

from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher.submit.executor import submit
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.slurm.commands import Commands

pytestmark = pytest.mark.cluster

HOSTILE = "two\nlines, \"quotes\" 'too' $(touch {0}) `touch {0}` %j \\ ; & ${{HOME}} \u00e9"

CLUSTER = """
default_profile = "batch"
[common.job]
mem = "1G"
[profiles.batch.job]
partition = "batch"
time = "10m"
stop_grace_s = 0.5
[profiles.batch.node]
gpus = 8
cpus = 8
[profiles.batch.fabric]
socket_interface = "lo"
hca = ["mlx5_0"]
env = { NCCL_DEBUG = "WARN" }
[profiles.batch.environment]
export = ["DATA_*", "LD_*"]
"""

PRINT_ENV = """
import json, os, sys, time
print(json.dumps(dict(os.environ)), flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with up(LabSpec(nodes=3, leaf=0)) as lab:
        yield lab


@pytest.fixture
def shell(lab: Lab, tmp_path: Path) -> dict[str, str]:
    """A person's environment, with a cluster's configuration and their own."""
    config, own = tmp_path / "cluster.toml", tmp_path / "config" / "trainmaster" / "config.toml"
    config.write_text(CLUSTER)
    own.parent.mkdir(parents=True)
    own.write_text("[job]\nrestarts_max = 2\n")
    names = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SLURM_CONF": str(lab.conf), "LANG": "C.UTF-8"}
    return {
        **names,
        "TRAINMASTER_CONFIG": str(config),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }


def command(env: dict[str, str], cwd: Path, *words: object) -> str:
    argv = [sys.executable, "-P", "-m", "trainmaster", *map(str, words)]
    done = subprocess.run(argv, env=env, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def submitted(env: dict[str, str], cwd: Path, *words: object) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(command(env, cwd, "submit", "--json", *words))
    return told


def output(run_dir: str | Path, rank: int = 0, attempt: int = 0) -> str:
    path = Path(run_dir) / f"attempt{attempt}.0" / f"rank{rank}.out"
    return path.read_text() if path.exists() else ""


def test_defaults_environment_and_secrets_reach_the_ranks_and_nobody_else(lab, shell, tmp_path):
    touched, go = tmp_path / "touched", tmp_path / "go"
    hostile = HOSTILE.format(touched)
    secret = "s3cr3t " + hostile
    env = {
        **shell,
        **{"DATA_ODD": hostile, "HF_TOKEN": secret, "API": secret, "OTHER": "1", "DISPLAY": ":0"},
        **{"NCCL_DEBUG": "INFO", "SLURM_CPU_BIND": "x", "SBATCH_PARTITION": "nowhere", "PMI_RANK": "3"},
    }
    (tmp_path / "show.py").write_text(PRINT_ENV)
    told = submitted(env, tmp_path, "--gpus-per-node", 2, "--secret", "API", "--export", "HF_*", "--export", "DATA_*",
                     "--env", f"WORD={hostile}", "--", sys.executable, "show.py", go)  # fmt: skip
    run_dir, job_id = Path(told["run_dir"]), told["job_id"]
    until(lambda: output(run_dir, 1).endswith("\n"), "the second rank has printed its environment")
    seen = json.loads(output(run_dir, 1))

    assert seen["DATA_ODD"] == seen["WORD"] == hostile and seen["HF_TOKEN"] == seen["API"] == secret
    assert (seen["NCCL_DEBUG"], seen["NCCL_IB_HCA"], seen["GLOO_SOCKET_IFNAME"]) == ("INFO", "=mlx5_0", "lo")
    assert not {"OTHER", "DISPLAY", "PMI_RANK", "SBATCH_PARTITION"} & set(seen)
    assert seen.get("SLURM_CPU_BIND") != "x" and seen["SLURM_CONF"] == str(lab.conf)
    assert [remark["check"] for remark in told["warnings"]] == ["environment"]

    # Where others look: command lines, Slurm's records and scripts, all files but the one of mode 0600.
    client = Commands(env=lab.env)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert b"s3cr3t" not in path.read_bytes(), path
        except (FileNotFoundError, ProcessLookupError):
            continue
    assert "s3cr3t" not in lab.run(["scontrol", "-dd", "show", "job", str(job_id)]).stdout
    assert "s3cr3t" not in client.batch_script(job_id)
    for folder in (lab.folder, run_dir):
        found = subprocess.run(["grep", "-rlI", "s3cr3t", folder], capture_output=True, text=True, check=False).stdout
        ours = {str(run_dir / "secrets.sh"), *map(str, run_dir.glob("attempt*/rank*.out"))}
        assert set(found.splitlines()) <= ours, found
    environments = [path for path in lab.folder.rglob("environment") if path.is_file()]
    assert environments, "slurmctld keeps the environment of a batch job in its state folder"
    assert all(b"s3cr3t" not in path.read_bytes() for path in environments)
    assert (run_dir / "secrets.sh").stat().st_mode & 0o777 == 0o600
    assert not touched.exists()

    job = client.job(job_id)
    assert job is not None and job.partition == "batch"
    assert "#SBATCH --cpus-per-task=2" in client.batch_script(job_id)
    go.touch()
    # Later, from another shell without any of this.
    plain = {name: shell[name] for name in ("PATH", "HOME", "XDG_STATE_HOME", "SLURM_CONF")}
    explained = json.loads(command(plain, Path("/"), "jobs", "explain", "--json", job_id))
    rows = {row["name"]: (row["value"], row["source"], row["where"]) for row in explained["explanation"]["rows"]}
    assert rows["--gpus-per-node"] == ("2", "you", "--gpus-per-node")
    assert rows["--mem"] == ("1G", "cluster profile", f"{tmp_path}/cluster.toml: common.job.mem")
    assert rows["--cpus-per-task"][1] == "worked out" and rows["NCCL_DEBUG"][:2] == ("INFO", "your shell")
    assert rows["restarts_max"] == (
        "2",
        "your defaults",
        f"{tmp_path}/config/trainmaster/config.toml: job.restarts_max",
    )
    assert explained["script"] == (run_dir / "job.sbatch").read_text()


def git(folder: Path, *words: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", "-C", folder, *identity, *words], check=True, capture_output=True)


TRAIN = """
import os, sys, time
import near, far
print(near.VERSION, far.VERSION, os.getcwd(), open("config.txt").read(), flush=True)
while os.environ["TRAINMASTER_ATTEMPT"] == "0" and not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
if os.environ["TRAINMASTER_ATTEMPT"] == "0":
    sys.exit(75)  # please requeue
"""


def test_a_requeued_job_runs_the_code_it_was_submitted_with(shell, tmp_path):
    repo, go = tmp_path / "my repo", tmp_path / "go"
    (repo / "src dir").mkdir(parents=True)
    git(repo, "init", "-q")

    def write(version: str) -> None:
        (repo / "near.py").write_text(f"VERSION = {version!r}\n")
        (repo / "src dir" / "far.py").write_text(f"VERSION = {version!r}\n")
        (repo / "config.txt").write_text(version)

    write("committed")
    (repo / "train.py").write_text(TRAIN)
    git(repo, "add", "-A")
    git(repo, "commit", "-qm", "x")
    write("submitted")
    env = {**shell, "PYTHONPATH": str(repo / "src dir")}
    told = submitted(env, repo, "--snapshot", "git", "--folder", tmp_path / "jobs", "--", sys.executable,
                     repo / "train.py", go)  # fmt: skip
    write("later")
    run_dir = Path(told["run_dir"])
    until(lambda: output(run_dir).endswith("\n"), "the first attempt has printed")
    write("still later")
    go.touch()
    until(lambda: output(run_dir, attempt=1).endswith("\n"), "the second attempt has printed")
    expected = f"submitted submitted {run_dir}/code submitted\n"
    assert (output(run_dir), output(run_dir, attempt=1)) == (expected, expected)
    summary = json.loads((run_dir / "code.json").read_text())
    assert summary["dirty"] == ["config.txt", "near.py", "src dir/far.py"] and summary["untracked"] == []
    # The same code again is linked, not copied.
    write("submitted")
    again = submitted(env, repo, "--snapshot", "git", "--folder", tmp_path / "jobs", "--", sys.executable,
                      "train.py", go)  # fmt: skip
    assert (Path(again["run_dir"]) / "code" / "near.py").samefile(run_dir / "code" / "near.py")
    command(env, repo, "jobs", "cancel", again["job_id"])


def test_a_callable_is_imported_from_the_copy(lab, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", str(lab.conf))
    git(tmp_path, "init", "-q")
    (tmp_path / "answers.py").write_text("import near\n\ndef answer():\n    return near.VERSION, __file__\n")
    (tmp_path / "near.py").write_text("VERSION = 'submitted'\n")
    git(tmp_path, "add", "-A")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    import answers  # type: ignore[import-not-found]

    spec = JobSpec(time=5, mem="1G", snapshot="git")
    job = submit(answers.answer, spec=spec, folder=tmp_path / "jobs")
    (tmp_path / "near.py").write_text("VERSION = 'later'\n")
    version, file = job.result()
    assert version == "submitted" and Path(file).parent.name == "code"
    explanation = job.explain()
    assert explanation is not None and "near.py" in next(row.why for row in explanation.rows if row.group == "code")


def test_a_job_that_runs_into_a_maintenance_is_told_so_before_and_after(lab, shell, tmp_path):
    reserve = ["StartTime=now+60minutes", "Duration=120", "Nodes=n[02-03]", "Flags=MAINT,IGNORE_JOBS", "Users=root"]
    lab.run(["scontrol", "create", "reservation", "ReservationName=service", *reserve])
    try:
        (found,) = Commands(env=lab.env).reservations()
        assert (found.name, found.nodes, found.maintenance) == ("service", "n[02-03]", True)
        words = ("--nodes", 2, "--cpus-per-task", 1, "--", "true")
        told = json.loads(command(shell, tmp_path, "submit", "--dry-run", "--json", "--time", "3h", *words))
        (remark,) = told["explanation"]["remarks"]
        assert remark["check"] == "reservation" and "'service' (maintenance" in remark["text"]
        assert "with a time limit of at most 0-00:5" in remark["text"]
        assert "could not place it" in told["start"] or "would start at" in told["start"]
        fits = json.loads(command(shell, tmp_path, "submit", "--dry-run", "--json", "--time", "30m", *words))
        assert fits["explanation"]["remarks"] == [] and "it would start at 20" in fits["start"]

        sent = submitted(shell, tmp_path, "--time", "3h", *words)
        assert [one["check"] for one in sent["warnings"]] == ["reservation"]
        client = Commands(env=lab.env)

        def reason() -> str:
            job = client.job(sent["job_id"])
            return job.reason if job is not None else ""

        until(lambda: reason().startswith("ReqNodeNotAvail"), "Slurm has looked at the job")
        explained = command(shell, tmp_path, "jobs", "explain", sent["job_id"])
        assert "PENDING" in explained and "a shorter `time`" in explained and "#SBATCH --time=0-03:00:00" in explained
        command(shell, tmp_path, "jobs", "cancel", sent["job_id"])
    finally:
        lab.run(["scontrol", "delete", "ReservationName=service"])


def test_nodes_that_are_out_of_service_are_told(lab, shell, tmp_path):
    lab.run(["scontrol", "update", "NodeName=n03", "State=DRAIN", "Reason=bad cable"])
    try:
        told = json.loads(command(shell, tmp_path, "submit", "--dry-run", "--json", "--nodes", 3, "--", "true"))
        (remark,) = told["explanation"]["remarks"]
        assert remark["check"] == "nodes" and "n03 IDLE+DRAIN (bad cable)" in remark["text"]
    finally:
        lab.run(["scontrol", "update", "NodeName=n03", "State=RESUME"])
