"""Where every value of a submission came from: a golden file, the way into the run folder and out again."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.clock import FakeClock
from fakes.slurm import FakeSlurm
from trainmaster.config import Cluster, Environment, Fabric, NodeFacts, Personal, Profile, Settings
from trainmaster.errors import UsageError
from trainmaster.launcher.submit import submission
from trainmaster.launcher.submit.belongings import for_all_roles, read
from trainmaster.launcher.submit.code_scan import CodeFile, Scan
from trainmaster.launcher.submit.defaults import apply
from trainmaster.launcher.submit.explanation import Explanation, as_text, explain
from trainmaster.launcher.submit.export import inherited
from trainmaster.launcher.submit.lint import Remark
from trainmaster.launcher.submit.render import render
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.launcher.submit.target import Program
from trainmaster.slurm.values import Partition

SETTINGS = Settings(
    cluster=Cluster(
        default_profile="h100",
        common=Profile(fabric=Fabric(socket_interface="ib0", env={"NCCL_DEBUG": "WARN"})),
        profiles={
            "h100": Profile(
                job={"partition": "gpu", "account": "research", "sbatch": {"comment": "from the profile"}},
                node=NodeFacts(gpus=8, cpus=96, memory="1600G"),
                fabric=Fabric(hca=("mlx5_0", "mlx5_1")),
                environment=Environment(export=("DATA_*",)),
            )
        },
    ),
    cluster_file=Path("/etc/trainmaster/config.toml"),
    personal=Personal(job={"spares": 1, "setup": ["module load cuda"]}),
    personal_file=Path("/home/me/.config/trainmaster/config.toml"),
)
SHELL = {
    "PATH": "/bin",
    "NCCL_DEBUG": "INFO",
    "DATA_DIR": "/data",
    "HF_TOKEN": "hunter2",
    "WANDB_API_KEY": "hunter2",
    "EDITOR": "vi",
    "DISPLAY": ":0",
}
CODE = Scan(
    root=Path("/home/me/project"),
    cwd=".",
    commit="0123456789abcdef0123456789abcdef01234567",
    branch="main",
    files=(CodeFile(path="train.py", mode="100644", oid="1"), CodeFile(path="model.py", mode="100644", oid="2")),
    dirty=("model.py",),
    untracked=("notes.txt", "data/", "out/", "x/"),
)


def example() -> tuple[JobSpec, Explanation]:
    asked = JobSpec(nodes=2, gpus_per_node=4, env={"LR": "1e-4"}, secrets=("HF_TOKEN",), snapshot="git")
    spec = apply(asked, SETTINGS, said_by={"nodes": "--nodes", "env": "--env"})
    taken = inherited(SHELL, (*(spec.export or ()), "WANDB_*"), spec.secrets)
    script = render(spec, name="train", run_dir=Path("/jobs/1"), python="/venv/bin/python")
    partition = Partition(name="gpu", default_time="1-00:00:00", default_memory="DefMemPerCPU=4096")
    remarks = [Remark(check="nodes", text="it wants 3 nodes, but 2 take jobs")]
    return spec, explain(spec, script, taken=taken, code=CODE, remarks=remarks, partition=partition)


def test_golden(golden):
    found = example()[1]
    # Without our own defaults of fields, of which there will be more.
    rows = tuple(row for row in found.rows if (row.group, row.source) != ("trainmaster", "trainmaster"))
    golden.check("launcher/explain.txt", "\n".join(as_text(replace(found, rows=rows))) + "\n")


def test_our_own_defaults_are_told_too():
    rows = {row.name: (row.value, row.source) for row in example()[1].rows if row.group == "trainmaster"}
    assert rows["restarts_max"] == ("10", "trainmaster") and rows["snapshot"] == ("git", "you")


def test_it_comes_back_from_json_as_it_was():
    found = example()[1]
    assert Explanation.from_json(found.to_json()) == found


def test_every_option_of_the_script_has_a_row_and_no_row_has_a_secret():
    spec, found = example()
    script = render(spec, name="train", run_dir=Path("/jobs/1"), python="p")
    options = {line.split("=")[0].split()[1] for line in script.splitlines() if line.startswith("#SBATCH --")}
    assert options == {row.name for row in found.rows if row.group == "Slurm is asked for"}
    assert "hunter2" not in found.to_json()
    assert {"HF_TOKEN", "WANDB_API_KEY"} <= {row.name for row in found.rows}


def test_a_spec_without_origins_is_explained_too():
    found = explain(JobSpec(nodes=2), "#SBATCH --nodes=2\n#SBATCH --no-kill\n", taken=inherited({}, None))
    assert [(row.name, row.source) for row in found.rows[:2]] == [("--nodes", "you"), ("--no-kill", "trainmaster")]


def test_no_value_can_play_with_the_terminal():
    spec = JobSpec(env={"A": "\x1b[2J\n\r caf\udce9"})
    found = explain(spec, "", taken=inherited({}, None), remarks=[Remark(check="x", text="\x07bell")])
    lines = list(as_text(found))
    assert all(line.isprintable() and line.encode() for line in lines)
    assert any("\\x1b[2J\\n\\r caf\\udce9" in line for line in lines) and "warning: \\x07bell" in lines
    assert Explanation.from_json(found.to_json()) == found


def draft(folder: Path, **values) -> submission.Draft:
    spec = apply(JobSpec(**values), SETTINGS)
    return submission.draft(Program(argv=("true",)), spec, folder, uid="u1", python="python")


def test_it_lies_in_the_run_folder_for_later(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hunter2")
    sent = submission.send(draft(tmp_path, secrets=("HF_TOKEN",)), FakeSlurm(), clock=FakeClock())
    script, found = read(sent.run_dir)
    assert found is not None and "#SBATCH --account=research" in script
    secrets = sent.run_dir / "secrets.sh"
    assert secrets.stat().st_mode & 0o777 == 0o600 and "hunter2" in secrets.read_text()
    assert f". {secrets} || exit 1" in script
    for path in sent.run_dir.rglob("*"):
        assert path == secrets or "hunter2" not in path.read_text(), path
    # A task of an array finds it one floor up.
    assert read(sent.run_dir / "3") == (script, found)


def test_a_folder_of_an_older_version_has_only_its_script(tmp_path):
    (tmp_path / "job.sbatch").write_text("#!/bin/bash\n")
    assert read(tmp_path) == ("#!/bin/bash\n", None)
    (tmp_path / "explain.json").write_text(json.dumps({"rows": [{"odd": 1}]}))
    assert read(tmp_path)[1] is None
    assert read(tmp_path / "nothing" / "here") == ("", None)


def test_a_secret_that_is_not_set_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(UsageError, match="the secret HF_TOKEN: there is no such variable here"):
        draft(tmp_path / "jobs", secrets=("HF_TOKEN",))
    assert not (tmp_path / "jobs").exists()


def test_what_the_shell_sets_against_the_profile_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    (remark,) = draft(tmp_path).remarks
    assert (remark.check, remark.text) == (
        "environment",
        "NCCL_DEBUG=INFO of your shell wins over WARN of the cluster profile "
        "(/etc/trainmaster/config.toml: common.fabric.env.NCCL_DEBUG)",
    )
    monkeypatch.setenv("NCCL_DEBUG", "WARN")
    assert draft(tmp_path).remarks == ()


def test_the_snapshot_and_the_secrets_of_any_role_are_all_roles():
    env = {"HF_TOKEN": "h", "OTHER_KEY": "o"}
    lead, worker = JobSpec(nodes=2, secrets=("HF_TOKEN",)), JobSpec(snapshot="git", secrets={"W": "w"})
    made = for_all_roles(lead, [lead, worker], env=env)
    assert (made.nodes, made.snapshot, made.secrets) == (2, "git", {"HF_TOKEN": "h", "W": "w"})
    # One that is missing is refused, as for any job.
    assert "GONE" in for_all_roles(lead, [lead, JobSpec(secrets=("GONE",))], env=env).secrets
