"""`trainmaster lab` as a person types it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.cluster

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def lab() -> Iterator[Run]:
    """Runs `trainmaster lab …` with a place for labs of its own; ends what a failed test leaves."""
    base = Path(f"/tmp/tmcli-{os.getpid()}")
    base.mkdir()
    env = {key: value for key, value in os.environ.items() if key not in ("SLURM_CONF", "TRAINMASTER_LAB")}
    env["XDG_RUNTIME_DIR"] = str(base)

    def run(*argv: str, ok: bool = True, **more: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "trainmaster", "lab", *argv]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**env, **more}, timeout=120)
        assert (done.returncode == 0) is ok, done.stderr
        return done

    yield run
    run("down", "--all")
    labs = base / f"trainmaster-lab-{os.getuid()}"
    if labs.exists():
        labs.rmdir()
    base.rmdir()


def as_json(done: "subprocess.CompletedProcess[str]") -> Any:
    return json.loads(done.stdout)


def test_a_lab_from_up_to_down(lab: Run) -> None:
    made = lab("up", "--nodes", "2", "--gpus", "1", "--set", "SlurmdTimeout=15")
    assert 'eval "$(trainmaster lab env)"' in made.stdout

    lines = lab("env").stdout
    shell = ["bash", "-c", f'export SBATCH_PARTITION=x; eval "{lines}"; scontrol show config; sinfo -h -o "%D %t"']
    seen = subprocess.run(shell, capture_output=True, text=True, check=True).stdout
    assert "SlurmdTimeout           = 15 sec" in seen
    assert "2 idle" in seen

    assert "node-death" in lab("fault", "--list").stdout
    assert "would kill 1 process" in lab("fault", "node-death", "n02", "--dry-run").stdout
    lab("fault", "node-death", "n02")
    status = as_json(lab("status", "--json"))
    assert [node["slurmd"] for node in status["nodes"]] == ["running", "dead"]
    assert [(fault["name"], fault["target"]) for fault in status["faults"]] == [("node-death", "n02")]
    assert "node-death n02" in lab("status").stdout

    pids = as_json(lab("down", "--dry-run", "--json"))["default"]
    # munged, slurmctld with its slurmscriptd, and the slurmd that is left.
    assert len(pids) == 4
    assert "4 processes killed, none left" in lab("down").stdout
    assert "there is no lab" in lab("down", ok=False).stderr


def test_up_tells_what_it_would_do_and_does_not(lab: Run) -> None:
    text = lab("up", "--dry-run", "--partition", "gpu:2x8", "--partition", "cpu:1").stdout
    assert "would build" in text
    assert "NodeName=n[01-02]" in text
    assert "SwitchName=leaf1 Nodes=n[01-02]" in text
    assert set(as_json(lab("up", "--dry-run", "--json"))["files"]) >= {"slurm.conf", "gres.conf", "topology.conf"}
    assert lab("status", "--all").stdout == ""


def test_several_labs_are_told_apart_by_name_or_folder(lab: Run) -> None:
    elsewhere = Path(f"/tmp/tmcli-{os.getpid()}-elsewhere")
    lab("up", "--nodes", "1", "--name", "one")
    lab("up", "--nodes", "1", "--folder", str(elsewhere))
    assert "which lab?" in lab("env", ok=False).stderr
    assert "one/slurm.conf" in lab("env", "--name", "one").stdout
    assert str(elsewhere) in lab("env", TRAINMASTER_LAB=str(elsewhere)).stdout
    # "which lab?", said `lab fault`, in a shell whose sinfo spoke of one.
    shell = {"SLURM_CONF": str(elsewhere / "slurm.conf")}
    assert "would kill 1 process" in lab("fault", "node-death", "n01", "--dry-run", **shell).stdout
    assert as_json(lab("status", "--json", **shell))["folder"] == str(elsewhere)
    assert "which lab?" in lab("env", ok=False, **shell).stderr
    assert [found["name"] for found in as_json(lab("status", "--all", "--json"))] == ["one", elsewhere.name]
    assert "is down" in lab("down", TRAINMASTER_LAB=str(elsewhere)).stdout
    assert not elsewhere.exists()
    # Only one is left, so no name is needed.
    assert "one/slurm.conf" in lab("env").stdout


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["up", "--partition", "gpu"], "NAME:NODES"),
        (["up", "--set", "SlurmdTimeout"], "Key=Value"),
        (["up", "--nodes", "0"], "0 nodes"),
        (["up", "--nodes", "100000"], "MiB of memory"),
        (["up", "--name", "../x"], "cannot be called"),
        (["up", "--folder", "/tmp/" + "x" * 60], "108 bytes"),
        (["status", "--name", "nope"], "there is no lab 'nope'"),
        (["env"], "there is no lab on this machine"),
        (["fault", "node-death", "n01"], "there is no lab on this machine"),
        (["fault"], "--list"),
    ],
)
def test_what_cannot_be_done_is_said_without_a_traceback(lab: Run, argv: list[str], words: str) -> None:
    said = lab(*argv, ok=False).stderr
    assert words in said
    assert "Traceback" not in said
