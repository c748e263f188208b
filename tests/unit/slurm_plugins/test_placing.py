"""The controller's unit and policy, a topology.conf: put in place, upgraded over edits, and taken away."""

import argparse
import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from trainmaster.cli import main
from trainmaster.errors import InstallError
from trainmaster.fabric import plan_cli
from trainmaster.slurm_plugins import install_controller, install_planner, placing

TOPOLOGY = "SwitchName=leaf1 Nodes=n[1-2]\nSwitchName=leaf2 Nodes=n[3-4]\nSwitchName=spine Switches=leaf[1-2]\n"


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cluster is asked."""
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "no-slurm.conf"))


@pytest.fixture
def topology(tmp_path: Path) -> Path:
    path = tmp_path / "made.conf"
    path.write_text(TOPOLOGY)
    return path


def test_what_was_edited_is_kept_by_an_upgrade_and_an_uninstall(tmp_path: Path) -> None:
    root, manifest = tmp_path / "root", tmp_path / "root/var/installed.json"
    placing.place(root, manifest, {"etc/a": b"one", "etc/b": b"one", "etc/gone": b"x"})
    (root / "etc/a").write_text("mine")
    done = placing.place(root, manifest, {"etc/a": b"two", "etc/b": b"two"})
    assert {(step.verb, step.path) for step in done} == {("keep", "etc/a"), ("write", "etc/b"), ("remove", "etc/gone")}
    assert (root / "etc/a").read_text() == "mine" and (root / "etc/a.new").read_text() == "two"
    assert (root / "etc/b").read_text() == "two" and not (root / "etc/gone").exists()
    # Again and again: it stays an edited file.
    placing.place(root, manifest, {"etc/a": b"three", "etc/b": b"two"})
    assert (root / "etc/a").read_text() == "mine"
    placing.remove(root, manifest)
    assert tree(root) == {"etc/a": "mine"}


def test_purge_leaves_nothing(tmp_path: Path) -> None:
    root, manifest = tmp_path / "root", tmp_path / "root/var/installed.json"
    placing.place(root, manifest, {"etc/a": b"one"})
    (root / "etc/a").write_text("mine")
    placing.place(root, manifest, {"etc/a": b"two"})
    placing.remove(root, manifest, purge=True)
    assert list(root.iterdir()) == []
    with pytest.raises(InstallError, match="nothing is installed"):
        placing.remove(root, manifest)


def test_an_edit_that_is_taken_back_is_upgraded_again(tmp_path: Path) -> None:
    root, manifest = tmp_path / "root", tmp_path / "root/installed.json"
    placing.place(root, manifest, {"a": b"one"})
    (root / "a").write_text("mine")
    placing.place(root, manifest, {"a": b"two"})
    (root / "a").write_text("one")
    placing.place(root, manifest, {"a": b"two"})
    assert (root / "a").read_text() == "two"


def test_a_dry_run_is_what_is_then_done_and_touches_nothing(tmp_path: Path) -> None:
    root, manifest = tmp_path / "root", tmp_path / "root/installed.json"
    planned = placing.steps(root, manifest, {"a": b"one"})
    assert not root.exists()
    assert placing.place(root, manifest, {"a": b"one"}) == planned
    assert placing.steps(root, manifest, {"a": b"one"}) == ()


def test_nobody_else_can_write_what_was_put_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        placing.place(tmp_path / "root", tmp_path / "root/installed.json", {"etc/deep/a": b"one"})
    finally:
        os.umask(before)
    for path in (tmp_path / "root").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path


def test_a_file_of_somebody_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("site's")
    with pytest.raises(InstallError, match="was not installed by trainmaster"):
        placing.place(tmp_path, tmp_path / "installed.json", {"a": b"one"})
    assert tree(tmp_path) == {"a": "site's"}


def test_the_controllers_unit_and_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"--prefix={tmp_path}", "--user=slurm", "--program=/usr/bin/true", "--slurm-conf=/etc/slurm/slurm.conf"]
    assert main(["install", "controller", *words, "--dry-run"]) == 0
    assert tree(tmp_path) == {}
    assert main(["install", "controller", *words]) == 0
    assert "systemctl daemon-reload" in capsys.readouterr().out
    unit = (tmp_path / install_controller.UNIT).read_text()
    lines = unit.splitlines()
    assert {"User=slurm", "ExecStart=/usr/bin/true controller run"} <= set(lines)
    assert "Environment=SLURM_CONF=/etc/slurm/slurm.conf" in lines and "Install by hand" not in unit
    from trainmaster.controller import policy

    assert policy.load(tmp_path / install_controller.POLICY).modes.default == "propose"
    # The site's own policy survives the next version, and the uninstall.
    mine = '[modes]\ndefault = "act"\n'
    (tmp_path / install_controller.POLICY).write_text(mine)
    assert main(["install", "controller", *words]) == 0
    assert main(["uninstall", "controller", f"--prefix={tmp_path}", "--dry-run", "--json"]) == 0
    assert (tmp_path / install_controller.UNIT).exists()
    assert main(["uninstall", "controller", f"--prefix={tmp_path}"]) == 0
    assert tree(tmp_path) == {install_controller.POLICY: mine}


def test_the_planners_unit_goes_as_it_came(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"--prefix={tmp_path}", "--program=/usr/bin/true", "--slurm-conf=/etc/slurm/slurm.conf"]
    assert main(["install", "planner", *words]) == 0
    assert "enable --now trainmaster-planner" in capsys.readouterr().out
    lines = (tmp_path / install_planner.UNIT).read_text().splitlines()
    command = next(line for line in lines if line.startswith("ExecStart="))
    assert "User=slurm" in lines and "Environment=SLURM_CONF=/etc/slurm/slurm.conf" in lines
    assert command.startswith("ExecStart=/usr/bin/true fabric plan ")
    # What it writes lies in a folder that the unit makes, and its words are ones that the command knows.
    folder = next(line for line in lines if line.startswith("RuntimeDirectory=")).partition("=")[2]
    assert install_planner.PLACEMENTS.startswith(f"/run/{folder}/")
    parser = argparse.ArgumentParser()
    plan_cli.add(parser.add_subparsers())
    parsed = parser.parse_args(command.split()[2:])
    assert (str(parsed.output), parsed.waiting, parsed.every) == (install_planner.PLACEMENTS, True, 10.0)
    assert main(["uninstall", "planner", f"--prefix={tmp_path}"]) == 0
    assert tree(tmp_path) == {}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
@pytest.mark.parametrize("what", ["controller", "planner"])
def test_systemd_takes_the_unit_and_finds_it_hardened(tmp_path: Path, what: str) -> None:
    assert main(["install", what, f"--prefix={tmp_path}", "--user=root", "--program=/usr/bin/true"]) == 0
    unit = tmp_path / {"controller": install_controller, "planner": install_planner}[what].UNIT
    checked = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert not [line for line in checked.stderr.splitlines() if unit.name in line], checked.stderr
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=30", unit],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert rated.returncode == 0, rated.stdout[-300:]


@pytest.mark.parametrize("words", [["--user=Robert'); drop"], ["--program=relative"], ["--program=/with a/blank"]])
def test_what_a_unit_cannot_hold(tmp_path: Path, words: list[str]) -> None:
    assert main(["install", "controller", f"--prefix={tmp_path}", *words]) == 1
    assert tree(tmp_path) == {}


@pytest.mark.usefixtures("alone")
def test_a_topology_and_the_one_that_was_there_before(
    tmp_path: Path, topology: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "topology.conf").write_text("# the site's\n")
    words = ["install", "topology", f"--prefix={folder}", f"--file={topology}"]
    assert main(words) == 1
    assert main([*words, "--replace", "--dry-run"]) == 0 and tree(folder) == {"topology.conf": "# the site's\n"}
    assert main([*words, "--replace"]) == 0
    assert "TopologyPlugin=topology/tree" in capsys.readouterr().out
    assert (folder / "topology.conf").read_text() == TOPOLOGY
    # The next one replaces ours without being asked; the site's is still kept.
    topology.write_text(TOPOLOGY.replace("leaf", "l"))
    assert main(words) == 0
    assert (folder / "topology.conf").read_text() == topology.read_text()
    assert main(["uninstall", "topology", f"--prefix={folder}"]) == 0
    assert tree(folder) == {"topology.conf": "# the site's\n"}


@pytest.mark.usefixtures("alone")
def test_a_topology_with_which_slurmctld_would_end_is_refused(tmp_path: Path, topology: Path) -> None:
    topology.write_text(TOPOLOGY + "SwitchName=leaf1 Nodes=n[5-6]\n")
    assert main(["install", "topology", f"--prefix={tmp_path}", f"--file={topology}"]) == 1
    assert main(["install", "topology", f"--prefix={tmp_path}", "--file=/no/such/file"]) == 1
    assert not (tmp_path / "topology.conf").exists()


@pytest.mark.usefixtures("alone")
def test_a_topology_that_slurm_conf_names_is_not_taken_away(tmp_path: Path, topology: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    assert main(["install", "topology", f"--prefix={folder}", f"--file={topology}"]) == 0
    (folder / "slurm.conf").write_text("TopologyPlugin=topology/tree\n")
    assert main(["uninstall", "topology", f"--prefix={folder}"]) == 1
    assert (folder / "topology.conf").exists()
    assert main(["uninstall", "topology", f"--prefix={folder}", "--force", "--json"]) == 0
    assert list(tree(folder)) == ["slurm.conf"]


def test_a_damaged_manifest_is_said(tmp_path: Path) -> None:
    (tmp_path / "installed.json").write_text(json.dumps([1]))
    with pytest.raises(InstallError, match="cannot be read"):
        placing.steps(tmp_path, tmp_path / "installed.json", {})


@pytest.mark.parametrize("path", ["/etc/passwd", "../victim", "etc/../../victim"])
def test_a_manifest_cannot_make_root_remove_what_lies_elsewhere(tmp_path: Path, path: str) -> None:
    folder = tmp_path / "opt"
    folder.mkdir()
    (tmp_path / "victim").write_text("x")
    for name in ("manifest.json", "trainmaster-topology.json"):
        (folder / name).write_text(json.dumps({"site": {}, "files": {path: "0"}}))
    for what in ("hooks", "topology"):
        assert main(["uninstall", what, f"--prefix={folder}", "--purge", "--force"]) == 1
    assert (tmp_path / "victim").exists()
