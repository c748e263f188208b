"""lab.json and the folders of labs."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trainmaster.errors import LabError
from trainmaster.lab import folders, install, netns, orphans, state
from trainmaster.lab.cluster import _require_memory
from trainmaster.lab.processes import look
from trainmaster.lab.state import AppliedFault, LabState, Owner, ProcessRecord


def lab(folder: Path, **different: Any) -> LabState:
    values: dict[str, Any] = {
        "name": folder.name,
        "folder": folder,
        "conf": folder / "slurm.conf",
        "slurm_version": "22.05.8",
        "controller_port": 20_000,
        "dbd_port": 20_001,
        "node_ports": {"n01": 20_002, "n02": 20_003},
    }
    return LabState(**(values | different))


def record(role: str, node: str | None, pid: int) -> ProcessRecord:
    return ProcessRecord(role=role, node=node, pid=pid, start_time=1)


def this_process(**different: int) -> Owner:
    seen = look(os.getpid())
    assert seen is not None
    return Owner(**({"pid": seen.pid, "start_time": seen.start_time} | different))


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tmp_path.chmod(0o711)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return folders.make_base()


def test_what_is_written_is_read_back() -> None:
    folder = Path("/tmp/x")
    full = lab(
        folder,
        processes=(record("slurmd", "n01", 7), record("munged", None, 8)),
        owner=Owner(pid=9, start_time=10),
        network=netns.plan("abc123", ("n01", "n02"), folder=folder),
        faults=(AppliedFault(name="node-death", target="n01", time=1.5),),
        ready=True,
    )
    assert state.decode(state.encode(full)) == full
    assert state.decode(state.encode(lab(folder))) == lab(folder)


def test_a_restarted_daemon_replaces_the_one_before() -> None:
    before = lab(Path("/x"), processes=(record("slurmd", "n01", 1), record("slurmd", "n02", 2)))
    after = before.with_process(record("slurmd", "n01", 3))
    assert {(p.node, p.pid) for p in after.processes} == {("n01", 3), ("n02", 2)}
    assert [p.pid for p in after.without_process("slurmd", "n01").processes] == [2]


def test_ports_of_dead_nodes_still_count() -> None:
    assert lab(Path("/x")).ports == {20_000, 20_001, 20_002, 20_003}


def test_change_is_on_disk(tmp_path: Path) -> None:
    state.save(lab(tmp_path))
    state.change(tmp_path, lambda now: replace(now, ready=True))
    assert state.load(tmp_path).ready


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"name": 1}'])
def test_a_state_that_cannot_be_read_is_an_error_of_the_lab(tmp_path: Path, text: str) -> None:
    (tmp_path / "lab.json").write_text(text)
    with pytest.raises(LabError, match="cannot be read"):
        state.load(tmp_path)


def test_no_lab(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="there is no lab"):
        state.load(tmp_path)


def test_orphans() -> None:
    assert not orphans.is_orphan(lab(Path("/x")))
    assert not orphans.is_orphan(lab(Path("/x"), owner=this_process()))
    # The pid is somebody else's by now.
    assert orphans.is_orphan(lab(Path("/x"), owner=this_process(start_time=1)))


def test_a_lab_elsewhere_is_known_by_its_name(base: Path, tmp_path: Path) -> None:
    folder = folders.claim("mine", tmp_path / "elsewhere")
    state.save(lab(folder, name="mine"))
    assert [found.folder for found in folders.all_labs()] == [folder]
    folders.forget("mine", folder)
    assert folders.all_labs() == ()


def test_labs_that_cannot_be_read_are_not_listed(base: Path) -> None:
    folders.claim("half", None)
    (base / "half" / "lab.json").write_text("{")
    (base / "empty").mkdir()
    assert folders.all_labs() == ()


def test_a_folder_with_a_lab_is_refused(base: Path) -> None:
    folder = folders.claim("mine", None)
    state.save(lab(folder))
    with pytest.raises(LabError, match="there is a lab") as caught:
        folders.claim("mine", None)
    assert "lab down" in caught.value.hint


def test_a_name_that_another_folder_has_is_refused(base: Path, tmp_path: Path) -> None:
    folders.claim("mine", tmp_path / "one")
    with pytest.raises(LabError, match="there is a lab"):
        folders.claim("mine", tmp_path / "two")
    assert not (tmp_path / "two").exists()


def test_a_folder_with_other_things_is_refused(base: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.tex").touch()
    with pytest.raises(LabError, match="not empty and holds no lab"):
        folders.claim("mine", tmp_path / "data")


def test_a_base_that_is_not_ours_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o711)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folders.base().symlink_to("/tmp")
    with pytest.raises(LabError, match="belongs to somebody else"):
        folders.make_base()


def test_a_folder_whose_sockets_would_have_names_too_long() -> None:
    room = 56
    folders.check_path(Path("/" + "x" * (room - 1)), ("n0512",))
    with pytest.raises(LabError, match="108 bytes"):
        folders.check_path(Path("/" + "x" * room), ("n0512",))


@pytest.mark.parametrize("folder", ["/tmp/a lab", "/tmp/lab[1]", "/tmp/lab%n", "/tmp/lab#1", "/tmp/lab,a"])
def test_a_folder_that_slurm_conf_cannot_name(folder: str) -> None:
    with pytest.raises(LabError, match=r"slurm\.conf cannot hold"):
        folders.check_path(Path(folder), ("n01",))


def test_missing_commands_are_told_with_their_packages() -> None:
    with pytest.raises(LabError, match="slurmctld-gone, munged-gone") as caught:
        install.require(("sh", "slurmctld-gone", "munged-gone"))
    assert caught.value.hint.startswith("apt-get install ")
    assert install.package_hint("munged", "slurmd", "sbatch", "sinfo") == (
        "apt-get install munge slurmd slurm-wlm-basic-plugins slurm-client"
    )


def test_more_nodes_than_memory() -> None:
    meminfo = "MemTotal: 9999999 kB\nMemAvailable:    1048576 kB\n"
    _require_memory(72, meminfo)
    with pytest.raises(LabError, match="1030 MiB") as caught:
        _require_memory(73, meminfo)
    assert caught.value.hint == "take at most 72 nodes"
