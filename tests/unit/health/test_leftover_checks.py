"""What jobs have left, what differs from the fleet, and where adapters sit."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorded_h100 import DRAIN, SKIP, WARN, gpus, judge, told
from trainmaster.health import epilog, genconf, leftovers, node
from trainmaster.health.check import Absent, Check, Context, Place
from trainmaster.health.checks import gpu_leftover, host_drift, host_stray, ib_rail
from trainmaster.health.finding import Action
from trainmaster.health.profile import Profile
from trainmaster.health.sources import image, processes, rails, strays
from trainmaster.lab import fakeroot

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
STAT = "{pid} ({name}) {state} {parent} 7 7 0 -1 0 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0\n"


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def later(check: Check, *values: Any, passed_s: float = 60.0, **profile: Any) -> Any:
    """The findings of a second pass that sees the same."""
    assert check.remember is not None
    memory = check.remember(Context(Profile(profile), None, 1e9), *values)
    return judge(check, *values, memory=memory, now_s=1e9 + passed_s, **profile)


def look(root: Path) -> tuple[Any, Any]:
    """The table of processes, and what else may be left."""
    place = Place(str(root))
    return processes.read(place), strays.read(place)


# -- gpu.leftover --------------------------------------------------------------------------------------------------


def test_memory_in_use_without_a_job() -> None:
    idle, busy = gpus({"memory.used": "0"}), gpus({"memory.used": "0"}, {"memory.used": "4000"})
    assert judge(gpu_leftover.CHECK, idle, {"stepds": 0}) == []
    assert told(judge(gpu_leftover.CHECK, busy, {"stepds": 0})) == [DRAIN]
    assert told(judge(gpu_leftover.CHECK, busy, {"stepds": 2})) == [SKIP]
    assert judge(gpu_leftover.CHECK, busy, {"stepds": 0}, thresholds={"gpu.leftover": 5000}) == []
    # MIG, or a driver that does not say.
    assert judge(gpu_leftover.CHECK, gpus({"memory.used": "[N/A]"}), {"stepds": 0}) == []


def test_a_leftover_counts_after_three_passes_and_never_before_a_job(tmp_path: Path) -> None:
    fakeroot.create(tmp_path, node_name="n01", gpus=2)
    state = fakeroot.read_state(tmp_path)
    state["gpus"][1]["values"]["memory.used"] = "4000"
    fakeroot.write_state(tmp_path, state)
    options = node.Options(root=str(tmp_path), only=("gpu.leftover",))
    actions = [node.run(options).decision.action for _ in range(3)]
    assert actions == [Action.COMMENT, Action.COMMENT, Action.DRAIN]
    (tmp_path / "bin/nvidia-smi").unlink()
    assert next(finding.check for finding in node.run(options).decision.findings if finding.bad) == "gpu.query"


@given(JSON)
def test_garbage_for_memory_in_use(text: Any) -> None:
    assert isinstance(judge(gpu_leftover.CHECK, gpus({"memory.used": str(text)}), {"stepds": 0}), list)


# -- host.stray ----------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A node with a living job 7 and a process of somebody."""
    write(tmp_path, "proc/100/stat", STAT.format(pid=100, name="slurmstepd", state="S", parent=1))
    write(tmp_path, "proc/100/cmdline", "slurmstepd: [7.batch]")
    write(tmp_path, "proc/200/stat", STAT.format(pid=200, name="python3", state="D", parent=1))
    write(tmp_path, "proc/200/status", "SigPnd:\t0000000000000100\n")
    write(tmp_path, "proc/self/stat", "no number")
    return tmp_path


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_process_that_survives_sigkill_drains(root: Path) -> None:
    os.chown(root / "proc/200", 54321, 54321)
    value = look(root)
    assert value[0]["left"] == [[200, 54321, "python3", "D", True]]
    assert judge(host_stray.CHECK, *value) == [], "it may be dying"
    assert later(host_stray.CHECK, *value, passed_s=10) == []
    (finding,) = later(host_stray.CHECK, *value)
    assert told([finding]) == [DRAIN] and finding.subject == "pid 200"
    # One that nobody has killed is told, and drains nobody.
    write(root, "proc/200/status", "SigPnd:\t0000000000000000\n")
    assert told(later(host_stray.CHECK, *look(root))) == [WARN]
    # Its user is logged in here, or has a job.
    write(root, "proc/200/cgroup", "0::/user.slice/user-54321.slice/session-3.scope\n")
    assert processes.read(Place(str(root)))["left"] == []
    # A service of the node may run as anybody.
    write(root, "proc/200/cgroup", "0::/system.slice/node_exporter.service\n")
    assert processes.read(Place(str(root)))["left"] == []
    write(root, "proc/200/cgroup", "0::/system.slice/slurmd.service\n")
    assert len(processes.read(Place(str(root)))["left"]) == 1
    write(root, "proc/201/stat", STAT.format(pid=201, name="train", state="S", parent=100))
    os.chown(root / "proc/201", 54321, 54321)
    assert processes.read(Place(str(root)))["left"] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_shared_memory_of_nobody(root: Path) -> None:
    write(root, "dev/shm/a", "x" * 8192)
    write(root, "dev/shm/folder/b", "x" * 8192)
    write(root, "dev/shm/of_root", "x")
    os.chown(root / "dev/shm/a", 54321, 54321)
    os.chown(root / "dev/shm/folder", 54322, 54322)
    value = look(root)
    assert value[1]["shm"] == {"54321": 8192, "54322": 8192}
    assert later(host_stray.CHECK, *value) == []
    assert told(later(host_stray.CHECK, *value, thresholds={"host.stray.shm": 0})) == [WARN, WARN]


def nested(folder: Path, levels: int) -> None:
    """Folders within folders, deeper than Python calls itself and than a path may be long."""
    folder.mkdir(parents=True)
    top = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=top)
        below = os.open("d", os.O_RDONLY, dir_fd=top)
        os.close(top)
        top = below
    os.close(top)


def test_a_link_in_shared_memory_is_removed_and_not_followed(root: Path) -> None:
    write(root, "home/somebody/file", "theirs")
    write(root, "dev/shm/folder/file", "x")
    for link in (root / "dev/shm/link", root / "dev/shm/folder/link"):
        link.symlink_to(root / "home/somebody")
        os.chown(link, 54321, 54321, follow_symlinks=False)
    assert [epilog._remove(str(root / "dev/shm" / name)) for name in ("link", "folder")] == [True, True]
    assert (root / "home/somebody/file").read_text() == "theirs" and not list((root / "dev/shm").iterdir())


def test_folders_a_thousand_deep_are_measured_and_removed(root: Path) -> None:
    """Python's own walk and rmtree end with RecursionError there, and with it the epilog: nothing was cleaned."""
    write(root, "dev/shm/deep/file", "x" * 8192)
    nested(root / "dev/shm/deep/more", 3000)
    os.chown(root / "dev/shm/deep", 54321, 54321)
    assert [size for _, _, size in leftovers.shared_memory(str(root))] == [8192]
    assert epilog._remove(str(root / "dev/shm/deep")) and not (root / "dev/shm/deep").exists()


def test_cgroups_of_jobs_that_are_gone(root: Path) -> None:
    for job in (7, 8):
        (root / f"sys/fs/cgroup/system.slice/slurmstepd.scope/job_{job}").mkdir(parents=True)
    value = look(root)
    assert list(host_stray.cgroups(*value).values()) == ["8"]
    (finding,) = later(host_stray.CHECK, *value)
    assert told([finding]) == [WARN] and finding.subject == "job 8"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_who_runs_something_owns_files_in_memory(root: Path) -> None:
    write(root, "dev/shm/a", "x" * 8192)
    os.chown(root / "dev/shm/a", 54321, 54321)
    write(root, "proc/201/stat", STAT.format(pid=201, name="vim", state="S", parent=1))
    write(root, "proc/201/cgroup", "0::/user.slice/user-54321.slice/session-3.scope\n")
    assert told(later(host_stray.CHECK, *look(root), thresholds={"host.stray.shm": 0})) == [WARN]
    os.chown(root / "proc/201", 54321, 54321)
    assert later(host_stray.CHECK, *look(root), thresholds={"host.stray.shm": 0}) == []


def test_a_clean_node_has_no_strays(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    value = look(tmp_path)
    assert value[1] == {"shm": {}, "cgroups": {}} and later(host_stray.CHECK, *value) == []


@given(JSON)
def test_a_damaged_memory_of_strays(memory: Any) -> None:
    table = {"left": [[7, 4000, "a", "D", True]], "people": [], "jobs": []}
    found = (
        judge(host_stray.CHECK, table, {"shm": {}, "cgroups": {}}, memory=memory)
        if not isinstance(memory, dict)
        else []
    )
    assert found == []


# -- host.drift ----------------------------------------------------------------------------------------------------


def test_what_is_installed(tmp_path: Path) -> None:
    fakeroot.create(tmp_path, node_name="n01", gpus=2)
    write(tmp_path, "proc/sys/kernel/osrelease", "6.1.0-18-amd64\n")
    write(tmp_path, "etc/os-release", 'PRETTY_NAME="Debian"\nID=debian\nVERSION_ID="12"\nIMAGE_ID=gpu-2026-11\n')
    value = image.read(Place(str(tmp_path)))
    assert value["kernel"] == "6.1.0-18-amd64" and value["system"] == "debian 12 gpu-2026-11"
    assert value["vbios"] and value["ib_fw"] == "28.39.1002"
    assert told(judge(host_drift.CHECK, value)) == [SKIP]
    assert judge(host_drift.CHECK, value, host=value) == []
    findings = judge(host_drift.CHECK, value, host={**value, "kernel": "6.1.0-21-amd64", "mlx5": "24.10"})
    assert told(findings) == [WARN, WARN]
    assert [finding.detail for finding in findings] == [
        "6.1.0-18-amd64, expected 6.1.0-21-amd64", "nothing, expected 24.10"
    ]  # fmt: skip
    assert image.read(Place(str(tmp_path / "empty"))) == {}
    fleet, odd = genconf.majority([{"host": value}, {"host": value}, {"host": {**value, "kernel": "old"}}])
    assert fleet == {"host": value} and odd == [(2, "host.kernel")]


@given(st.text())
def test_any_os_release(text: str) -> None:
    assert isinstance(image.parse_release(text), dict)


# -- ib.rail -------------------------------------------------------------------------------------------------------


@pytest.fixture
def bus(tmp_path: Path) -> Path:
    """Two adapters and two GPUs, each pair below a switch of its own, as sysfs links them."""
    for number in range(2):
        switch = f"sys/devices/pci0000:{number}0/0000:{number}0:01.0"
        for name, vendor, kind, numa in (
            (f"0000:{number}1:00.0", "0x15b3", "0x020700", number),
            (f"0000:{number}2:00.0", "0x10de", "0x030200", number),
        ):
            for file, text in {"vendor": vendor, "class": kind, "numa_node": str(numa)}.items():
                write(tmp_path, f"{switch}/{name}/{file}", text + "\n")
            (tmp_path / "sys/bus/pci/devices").mkdir(parents=True, exist_ok=True)
            (tmp_path / "sys/bus/pci/devices" / name).symlink_to(tmp_path / switch / name)
        plug(tmp_path, f"mlx5_{number}", f"0000:{number}1:00.0")
    return tmp_path


def plug(root: Path, adapter: str, address: str) -> None:
    folder = root / "sys/class/infiniband" / adapter
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "device").unlink(missing_ok=True)
    (folder / "device").symlink_to((root / "sys/bus/pci/devices" / address).resolve())


def test_adapters_next_to_their_gpus(bus: Path) -> None:
    value = rails.read(Place(str(bus)))
    made = genconf.describe({rails.SOURCE.name: value})["rails"]
    assert made["mlx5_1"] == {"pci": "0000:11:00.0", "numa": 1, "gpu": "0000:12:00.0"}
    assert told(judge(ib_rail.CHECK, value)) == [SKIP]
    assert judge(ib_rail.CHECK, value, rails=made) == []
    plug(bus, "mlx5_0", "0000:11:00.0")
    plug(bus, "mlx5_1", "0000:01:00.0")
    swapped = rails.read(Place(str(bus)))
    findings = judge(ib_rail.CHECK, swapped, rails=made)
    assert told(findings) == [DRAIN, DRAIN]
    assert findings[0].detail == "sits at 0000:11:00.0, expected 0000:01:00.0"
    # The site may name only what matters to it.
    only_gpu = {name: {"gpu": facts["gpu"]} for name, facts in made.items()}
    assert next(f.detail for f in judge(ib_rail.CHECK, swapped, rails=only_gpu)) == (
        "is next to GPU 0000:12:00.0, expected 0000:02:00.0"
    )
    assert told(judge(ib_rail.CHECK, swapped, rails={"mlx5_0": {"numa": 0}})) == [DRAIN]


def test_without_adapters_or_a_telling_bus_there_is_nothing_to_judge(tmp_path: Path, bus: Path) -> None:
    with pytest.raises(Absent):
        rails.read(Place(str(tmp_path / "empty")))
    flat = {"adapters": {"mlx5_0": {"pci": "a", "numa": None, "path": []}}, "gpus": {"g": {"path": [], "numa": None}}}
    assert judge(ib_rail.CHECK, flat, rails={"mlx5_0": {"gpu": "g2"}}) == []
    assert judge(ib_rail.CHECK, flat, rails={"mlx5_9": {"gpu": "g"}, "mlx5_0": 7}) == []


@given(st.dictionaries(st.sampled_from(["mlx5_0", "mlx5_1"]), JSON))
def test_any_profile_of_rails(wanted: dict[str, Any]) -> None:
    value = {"adapters": {"mlx5_0": {"pci": "a", "numa": 0, "path": ["x"]}}, "gpus": {}}
    assert isinstance(judge(ib_rail.CHECK, value, rails=wanted), list)
