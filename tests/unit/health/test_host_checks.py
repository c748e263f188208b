"""The checks of the host itself, on trees of files as /proc and /sys lay them out."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorded_h100 import DRAIN, RESET, SKIP, WARN, judge, told
from trainmaster.health import children, registry
from trainmaster.health.check import Absent, Completed, Context, Missing, Place, SourceFault
from trainmaster.health.checks import (
    cpu_clocksource,
    cpu_count,
    cpu_gov,
    fs_alive,
    fs_mount,
    fs_usage,
    limits_hugepages,
    limits_memlock,
    mem_edac,
    mem_total,
    proc_room,
    proc_zombies,
    svc_active,
    time_offset,
    time_sync,
)
from trainmaster.health.finding import Verdict
from trainmaster.health.profile import Profile
from trainmaster.health.sources import clock, cpu, memory, mounts, processes, space, tracking, units


def tree(root: Path, files: dict[str, str]) -> Place:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Place(str(root))


def test_this_machine_is_read_without_a_fault() -> None:
    for source in {source.name: source for check in registry.every() for source in check.sources}.values():
        if source.read is not None and source.name != "node.kmsg":
            try:
                source.read(Place())
            except Absent:
                pass


# -- memory --------------------------------------------------------------------------------------------------------

MEMINFO = """MemTotal:       131981020 kB
MemAvailable:   131451588 kB
HugePages_Total:      16
Hugepagesize:       2048 kB
"""


def test_memory(tmp_path: Path) -> None:
    edac = "sys/devices/system/edac/mc"
    place = tree(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "sys/devices/system/node/node0/meminfo": "Node 0 MemTotal:       65990510 kB\n",
            "sys/devices/system/node/node1/meminfo": "Node 1 MemTotal:       65990510 kB\n",
            "sys/devices/system/node/online": "0-1\n",
            f"{edac}/mc0/ce_count": "12\n",
            f"{edac}/mc0/ue_count": "0\n",
        },
    )
    value = memory.read(place)
    assert value["nodes"] == {"node0": 65990510, "node1": 65990510}
    assert told(judge(mem_total.CHECK, value)) == [SKIP]
    assert judge(mem_total.CHECK, value, memory_mib=128888) == []
    assert told(judge(mem_total.CHECK, value, memory_mib=145000)) == [DRAIN]
    assert told(judge(mem_total.CHECK, {**value, "nodes": {"node0": 65990510, "node1": 33000000}})) == [WARN]
    assert judge(mem_edac.CHECK, value) == []
    assert told(judge(mem_edac.CHECK, {**value, "edac": {}})) == [SKIP]
    assert told(judge(mem_edac.CHECK, {**value, "edac": {"mc0": {"ce_count": 12, "ue_count": 1}}})) == [RESET]
    assert judge(limits_hugepages.CHECK, value, hugepages={"total": 16}) == []
    assert told(judge(limits_hugepages.CHECK, value, hugepages={"total": 1024})) == [DRAIN]
    assert told(judge(limits_hugepages.CHECK, value)) == [SKIP]


def test_corrected_errors_count_by_the_day() -> None:
    def counted(*counts: int, every_s: float) -> Any:
        kept: Any = None
        for number, count in enumerate(counts):
            value = {"edac": {"mc0": {"ce_count": count, "ue_count": 0}}}
            context = Context(Profile({}), kept, 1e9 + every_s * number)
            findings = mem_edac.judge(context, value)
            kept = mem_edac.remember(context, value)
        return told(findings)

    assert counted(50_000, every_s=300) == []
    assert counted(0, 800, 1600, every_s=300) == [WARN]
    assert counted(0, 800, 1600, every_s=50_000) == [WARN]
    assert counted(0, 400, 800, 1200, every_s=50_000) == []


def test_memory_that_cannot_be_told_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(SourceFault):
        memory.read(tree(tmp_path, {"proc/meminfo": "SwapTotal: 0 kB\n"}))


# -- CPUs and clocks -----------------------------------------------------------------------------------------------


def test_cpus(tmp_path: Path) -> None:
    base = "sys/devices/system"
    place = tree(
        tmp_path,
        {
            f"{base}/cpu/online": "0-14\n",
            f"{base}/cpu/present": "0-15\n",
            f"{base}/cpu/cpufreq/policy0/scaling_governor": "performance\n",
            f"{base}/cpu/cpufreq/policy1/scaling_governor": "powersave\n",
            f"{base}/clocksource/clocksource0/current_clocksource": "hpet\n",
            f"{base}/clocksource/clocksource0/available_clocksource": "tsc hpet acpi_pm\n",
        },
    )
    value = cpu.read(place)
    assert told(judge(cpu_count.CHECK, value)) == [WARN]
    assert told(judge(cpu_count.CHECK, value, cpus=16)) == [DRAIN]
    assert judge(cpu_count.CHECK, value, cpus=15) == []
    assert judge(cpu_count.CHECK, {**value, "online": 8}) == [], "without hyper-threading"
    assert told(judge(cpu_gov.CHECK, value)) == [SKIP]
    assert told(judge(cpu_gov.CHECK, value, governor="performance")) == [WARN]
    assert told(judge(cpu_clocksource.CHECK, value)) == [WARN]
    assert told(judge(cpu_clocksource.CHECK, value, clocksource="tsc")) == [WARN]
    good = {**value, "clocksource": "tsc", "online": 16, "governors": {"performance": 16}}
    for check in (cpu_count, cpu_clocksource):
        assert judge(check.CHECK, good) == []
    assert judge(cpu_gov.CHECK, good, governor="performance") == []
    assert told(judge(cpu_count.CHECK, cpu.read(Place(str(tmp_path / "none"))))) == [SKIP]


@pytest.mark.parametrize(("text", "count"), [("0", 1), ("0-3,8,10-11", 7), ("", None), ("a-b", None), ("3-", None)])
def test_lists_of_cpus(text: str, count: int | None) -> None:
    assert cpu.width(text) == count


def test_the_clock() -> None:
    value = clock.read(Place())
    assert value["maxerror_us"] >= 0
    right = {"state": 0, "status": 0x2001, "maxerror_us": 4000, "esterror_us": 10}
    assert judge(time_sync.CHECK, right) == []
    assert told(judge(time_sync.CHECK, {**right, "status": 0x41})) == [WARN]
    assert told(judge(time_sync.CHECK, {**right, "state": clock.TIME_ERROR})) == [WARN]


def test_a_clock_that_was_well_is_not_asked_in_every_pass() -> None:
    asked = clock.remember(clock.read(Place()))
    well = {**asked, "state": 0, "status": 0x2001, "maxerror_us": -7}
    assert clock.read(Place(memory=well)) == well
    for left in (
        {**well, "status": clock.STA_UNSYNC},
        {**well, "uptime_s": well["uptime_s"] - clock.AGAIN_S},
        {**well, "uptime_s": well["uptime_s"] + 60},
        {**well, "state": None},
        {"uptime_s": well["uptime_s"]},
        [well],
    ):
        assert clock.read(Place(memory=left))["maxerror_us"] >= 0


# -- file systems --------------------------------------------------------------------------------------------------

MOUNTINFO = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
40 27 0:40 / /scratch rw,flock master:3 - lustre 10.0.0.1@o2ib:/fs rw,lazystatfs
41 27 0:41 / /home\040of\040all ro,nosuid - nfs4 nas:/home rw,vers=4.2
"""


def test_mounts() -> None:
    value = mounts.parse(MOUNTINFO + "garbage\n1 2 3\n")
    assert value["/scratch"]["type"] == "lustre" and "/home of all" in value
    assert told(judge(fs_mount.CHECK, value)) == [SKIP]
    good = {"/scratch": {"type": "lustre", "options": ["rw", "flock"]}, "/": {}}
    assert judge(fs_mount.CHECK, value, mounts=good) == []
    assert told(judge(fs_mount.CHECK, value, mounts={"/data": {}})) == [DRAIN]
    assert told(judge(fs_mount.CHECK, value, mounts={"/scratch": {"type": "nfs4"}})) == [DRAIN]
    assert told(judge(fs_mount.CHECK, value, mounts={"/scratch": {"options": ["rw", "noatime"]}})) == [DRAIN]
    findings = judge(fs_mount.CHECK, value, mounts={"/home of all": {}})
    assert told(findings) == [DRAIN] and findings[0].detail == "mounted read-only"
    assert judge(fs_mount.CHECK, value, mounts={"/home of all": {"options": ["ro"]}}) == []


@given(st.text())
def test_no_table_of_mounts_is_raised(text: str) -> None:
    mounts.parse(text)


def test_full_file_systems() -> None:
    value = {
        "/": {"used": 70.0, "inodes": 1.0},
        "/tmp": {"used": 86.0, "inodes": 1.0},
        "/v": {"used": 1.0, "inodes": 99.0},
    }
    findings = judge(fs_usage.CHECK, value)
    assert [(finding.subject, *told([finding])) for finding in findings] == [("/tmp", WARN), ("/v", DRAIN)]
    assert told(judge(fs_usage.CHECK, {"/": {"used": 70.0}}, thresholds={"fs.usage": 60})) == [DRAIN]
    assert judge(fs_usage.CHECK, {"/": {"used": 97.0}}, thresholds={"fs.usage": 60, "fs.usage:/": 110}) == []


def test_a_mount_that_hangs_is_named_and_the_others_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "stale", "z"):
        (tmp_path / name).mkdir()
    real = os.stat

    def stat(path: Any, *args: Any, **kwargs: Any) -> Any:
        if str(path).endswith("stale"):
            time.sleep(300)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", stat)
    paths = [str(tmp_path / name) for name in ("a", "stale", "z", "gone")]
    found = space.ask_all(paths, "", patience_s=1.0)
    monkeypatch.undo()
    assert found[paths[1]]["hung"] and found[paths[0]]["used"] >= 0 and found[paths[2]]["used"] >= 0
    assert found[paths[3]] == {"error": "No such file or directory"}
    findings = judge(fs_alive.CHECK, found)
    assert [(finding.verdict, finding.subject) for finding in findings] == [
        (Verdict.FAIL, paths[3]),
        (Verdict.HUNG, paths[1]),
    ]
    assert fs_alive.CHECK.strikes == 2


def test_a_root_that_is_always_full_is_not_full(tmp_path: Path) -> None:
    table = "27 1 254:0 / / ro - squashfs /dev/loop0 ro\n28 27 254:1 / /tmp rw - ext4 /dev/sda1 rw\n"
    tree(tmp_path, {"proc/self/mountinfo": table, "tmp/x": ""})
    value = space.read(Place(str(tmp_path)))
    assert value["/"] == {} and value["/tmp"]["used"] >= 0
    assert judge(fs_alive.CHECK, value) == []


# -- processes and services ----------------------------------------------------------------------------------------

LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max locked memory         8388608              8388608              bytes
"""


def stat_line(pid: int, name: str, state: str) -> str:
    return f"{pid} ({name}) {state} 1 " + "0 " * 17 + "4242 0 0\n"


def test_processes(tmp_path: Path) -> None:
    place = tree(
        tmp_path,
        {
            "proc/1/stat": stat_line(1, "init", "S"),
            "proc/7/stat": stat_line(7, "a) b (c", "Z"),
            "proc/8/stat": stat_line(8, "python", "D"),
            "proc/8/wchan": "nv_open_q",
            "proc/9/stat": stat_line(9, "slurmd", "S"),
            "proc/9/limits": LIMITS,
            "proc/10/stat": "garbage",
            "proc/loadavg": "0.15 0.03 0.01 1/208 1230\n",
            "proc/sys/fs/file-nr": "950\t0\t1000\n",
            "proc/sys/kernel/pid_max": "32768\n",
            "proc/sys/kernel/threads-max": "250\n",
        },
    )
    value = processes.read(place)
    assert (value["count"], value["zombies"]) == (4, 1)
    assert value["stuck"] == [[8, 4242, "python", "nv_open_q"]]
    assert told(judge(proc_room.CHECK, value)) == [WARN, DRAIN]
    assert judge(proc_room.CHECK, {**value, "files": 10, "threads": 10}) == []
    assert judge(proc_zombies.CHECK, value) == [] and told(judge(proc_zombies.CHECK, {"zombies": 5000})) == [WARN]
    assert told(judge(limits_memlock.CHECK, value, gpus=8)) == [DRAIN]
    assert told(judge(limits_memlock.CHECK, value)) == [SKIP]
    assert judge(limits_memlock.CHECK, {"slurmd": {"Max locked memory": "unlimited"}}, gpus=8) == []
    assert told(judge(limits_memlock.CHECK, {"slurmd": None}, gpus=8)) == [SKIP]


@given(st.text())
def test_no_line_of_a_process_is_raised(line: str) -> None:
    processes.parse_stat(line)
    processes.limits(line)


SYSTEMCTL = """Id=munge.service
ActiveState=active
SubState=running

Id=nvidia-fabricmanager.service
ActiveState=failed
SubState=failed
"""


def test_services(tmp_path: Path) -> None:
    with pytest.raises(Absent):
        next(units.ask(Place(str(tmp_path))))
    profile = Profile({"units": ["munge", "nvidia-fabricmanager"]})
    with pytest.raises(Missing):
        next(units.ask(Place(str(tmp_path), profile)))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/systemctl").touch(mode=0o755)
    talk = units.ask(Place(str(tmp_path), profile))
    assert next(talk)[1:] == ["show", "--property=Id,ActiveState,SubState", "--", "munge", "nvidia-fabricmanager"]
    with pytest.raises(StopIteration) as done:
        talk.send(Completed(SYSTEMCTL, "", 0))
    findings = judge(svc_active.CHECK, done.value.value)
    assert told(findings) == [DRAIN] and findings[0].subject == "nvidia-fabricmanager"
    assert told(judge(svc_active.CHECK, {"x": ["activating", "start"]})) == [WARN]
    with pytest.raises(SourceFault):
        units.parse("System has not been booted with systemd", ["munge", "slurmd"])


def test_programs_are_found_without_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PATH")
    assert children.which("sh") is not None
    assert children.which("no-such-tool") is None and children.which("sh", str(tmp_path)) is None


# -- time.offset ---------------------------------------------------------------------------------------------------

# `chronyc -n -c tracking` of chrony 4.3 that follows its own clock.
TRACKING = "7F7F0101,,8,1795455527.834737901,0.000000000,0.0,0.0,0.000,0.000,0.000,0.000000000,0.000000000,0.0,Normal\n"


def test_how_far_the_clock_is_off() -> None:
    value = tracking.parse(TRACKING)
    assert value == {"offset_s": 0.0, "stratum": 8, "leap": "Normal"} and judge(time_offset.CHECK, value) == []
    for offset_s, expected in ((-2.0, [WARN]), (59.0, [WARN]), (61.0, [DRAIN]), (-4000.0, [DRAIN])):
        assert told(judge(time_offset.CHECK, {**value, "offset_s": offset_s})) == expected
    assert told(judge(time_offset.CHECK, {**value, "leap": "Not synchronised", "offset_s": 99.0})) == [WARN]
    assert told(judge(time_offset.CHECK, {**value, "offset_s": 61.0}, thresholds={"time.offset": 120})) == [WARN]


@given(st.text())
def test_garbage_from_chronyc(text: str) -> None:
    try:
        assert isinstance(judge(time_offset.CHECK, tracking.parse(text)), list)
    except SourceFault:
        pass


@pytest.mark.parametrize(
    ("said", "code", "raised"),
    [
        ("506 Cannot talk to daemon", 1, Absent),
        ("Could not open connection to daemon", 1, Absent),
        ("no", 1, SourceFault),
    ],
)
def test_chrony_that_does_not_answer(tmp_path: Path, said: str, code: int, raised: type[Exception]) -> None:
    with pytest.raises(Absent):
        next(tracking.ask(Place(str(tmp_path))))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/chronyc").write_text("#!/bin/sh\n")
    (tmp_path / "bin/chronyc").chmod(0o755)
    asking = tracking.ask(Place(str(tmp_path)))
    assert next(asking)[1:] == ["-n", "-c", "tracking"]
    with pytest.raises(raised):
        asking.send(Completed("", said, code))
