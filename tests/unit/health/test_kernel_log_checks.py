"""The checks that read the kernel's log: each event once, weighed by the catalogue, held until it is over."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorded_h100 import DRAIN, NOTE, REQUEUE, RESET, WARN, judge, log, sections, told
from trainmaster.health import registry, xids
from trainmaster.health.check import Check, Context, Place
from trainmaster.health.checks import fs_errors, gpu_sxid, gpu_xid, ib_kmsg, mem_mce, node_kmsg
from trainmaster.health.profile import Profile
from trainmaster.health.sources import drives, kernel_log

OF_THE_LOG = [check for check in registry.CHECKS if kernel_log.SOURCE in check.sources]
GPU = "PCI:0000:0f:00"
DRIVES: dict[str, Any] = {"nvme": {}, "degraded": {}}
LOADED = "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  580.159.04"


def xid(number: int, text: str = "pid=7, name=python", gpu: str = GPU) -> str:
    return f"NVRM: Xid ({gpu}): {number}, {text}"


def beside(check: Check) -> list[Any]:
    """What the other sources of a check gave."""
    return [DRIVES for source in check.sources if source is drives.SOURCE]


def then(check: Check, memory: Any, *values: Any, now_s: float = 1e9) -> Any:
    """What the check remembers for the next pass."""
    assert check.remember is not None
    return check.remember(Context(Profile({}), memory, now_s), *values)


# -- the source ----------------------------------------------------------------------------------------------------


def test_the_recorded_log_is_read(tmp_path: Path) -> None:
    recorded = dict(sections("kernel-log.txt"))["/dev/kmsg"]
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kmsg").write_text(recorded)
    value = kernel_log.read(Place(str(tmp_path)))
    assert value["last"] == 361 and value["lost"] == 0
    numbers = [found.number for record in value["records"] if (found := gpu_xid.parse(record[3]))]
    assert numbers == [31, 43]
    again = kernel_log.read(Place(str(tmp_path), memory=kernel_log.remember(value)))
    assert again["records"] == [] and again["last"] == 361
    with (tmp_path / "dev/kmsg").open("a") as stream:
        stream.write(f"4,365,1,-;{xid(79)}\n SUBSYSTEM=pci\n DEVICE=+pci:0000:0f:00.0\n")
    grown = kernel_log.read(Place(str(tmp_path), memory=kernel_log.remember(value)))
    assert [record[0] for record in grown["records"]] == [365] and grown["lost"] == 3
    assert told(judge(node_kmsg.CHECK, grown)) == [WARN]


@pytest.mark.skipif(not os.access("/dev/kmsg", os.R_OK), reason="this user may not read the kernel's log")
def test_this_machines_own_log_is_read_to_its_end() -> None:
    value = kernel_log.read(Place())
    assert value["last"] >= 0
    assert len(kernel_log.read(Place(memory=kernel_log.remember(value)))["records"]) <= len(value["records"])


@given(st.lists(st.binary(max_size=60)), st.integers(-1, 100))
def test_no_garbage_in_the_log_is_raised(lines: list[bytes], cursor: int) -> None:
    value = kernel_log.collect(lines, cursor)
    assert value["last"] >= cursor and value["lost"] >= 0


def test_a_storm_of_one_error_does_not_drown_another() -> None:
    lines = [f"4,{number},0,-;{xid(31, f'pid={number}')}".encode() for number in range(100_000)]
    value = kernel_log.collect([*lines[:50_000], f"4,50000,0,-;{xid(79)}".encode(), *lines[50_001:]], -1)
    assert len(value["records"]) <= 2 * kernel_log.ALIKE_MAX and value["last"] == 99_999
    assert REQUEUE in told(judge(gpu_xid.CHECK, value))


# -- every check ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", OF_THE_LOG, ids=lambda check: check.id)
def test_the_recorded_log_of_a_healthy_gpu_drains_nothing(check: Check) -> None:
    # A program wrote to a wild address (31), another failed an assertion (43): the programs' own faults.
    lines = dict(sections("kernel-log.txt"))["/dev/kmsg"].splitlines()
    value = kernel_log.collect([line.encode() for line in lines], -1)
    assert set(told(judge(check, value, *beside(check)))) <= {NOTE}


@pytest.mark.parametrize("check", OF_THE_LOG, ids=lambda check: check.id)
@given(texts=st.lists(st.one_of(st.text(max_size=80), st.text(max_size=40).map(lambda text: f"NVRM: Xid {text}"))))
def test_no_words_of_the_kernel_break_a_check(check: Check, texts: list[str]) -> None:
    value = {"records": [[number, 0, 4, text] for number, text in enumerate(texts)], "last": len(texts), "lost": 0}
    judge(check, value, *beside(check))
    if check.remember is not None:
        then(check, None, value, *beside(check))


# -- Xid -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", sorted(xids.RESET))
def test_what_asks_for_a_reset_drains(number: int) -> None:
    findings = judge(gpu_xid.CHECK, log(xid(number)))
    assert told(findings) == [RESET] and findings[0].subject == "0000:0f:00.0"
    assert str(number) in findings[0].detail


@pytest.mark.parametrize("number", sorted(xids.USER))
def test_a_programs_own_fault_is_counted_against_nobody(number: int) -> None:
    value = log(*(xid(number, f"pid={pid}, name=python") for pid in range(50)))
    assert told(judge(gpu_xid.CHECK, value)) == [NOTE]


@pytest.mark.parametrize("number", sorted(xids.IGNORE | xids.IGNORE_590))
def test_what_the_catalogue_ignores_is_ignored(number: int) -> None:
    assert judge(gpu_xid.CHECK, log(xid(number))) == []


def test_a_gpu_that_fell_off_the_bus_takes_its_job_with_it() -> None:
    assert told(judge(gpu_xid.CHECK, log(xid(79, "pid='<unknown>', name=<unknown>, GPU has fallen off the bus.")))) == [
        REQUEUE
    ]


def test_a_contained_error_drains_only_when_it_comes_back_to_another_program() -> None:
    once = log(xid(94, "pid=7, name=python, Contained: SM (0x1)"))
    assert told(judge(gpu_xid.CHECK, once)) == [NOTE]
    same = log(xid(94), xid(94))
    assert told(judge(gpu_xid.CHECK, same)) == [NOTE]
    memory = then(gpu_xid.CHECK, None, once, now_s=1e9)
    later = log(xid(94, "pid=8, name=python"))
    assert RESET in told(judge(gpu_xid.CHECK, later, memory=memory, now_s=1e9 + 3600))
    assert told(judge(gpu_xid.CHECK, later, memory=memory, now_s=1e9 + 90_000)) == [NOTE]


def test_a_number_that_nobody_knows_is_a_warning() -> None:
    assert told(judge(gpu_xid.CHECK, log(xid(999)))) == [WARN]


@pytest.mark.parametrize(
    ("action", "expected"),
    [("GPU Reset Required", RESET), ("Node Reboot Required", RESET), ("Drain P2P", WARN), ("Drain and Reset", RESET)],
)
def test_the_text_of_154_says_what_is_needed(action: str, expected: Any) -> None:
    line = xid(154, f"GPU recovery action changed from 0x0 (None) to 0x2 ({action})")
    assert told(judge(gpu_xid.CHECK, log(line))) == [expected]


def test_what_is_held_against_a_gpu_outlives_quiet_passes_and_ends_with_its_cause() -> None:
    memory = then(gpu_xid.CHECK, None, log(xid(95)))
    for _ in range(3):
        assert told(judge(gpu_xid.CHECK, log(), memory=memory)) == [RESET]
        memory = then(gpu_xid.CHECK, memory, log())
    text = "GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)"
    other = log(xid(154, text, gpu="PCI:0000:10:00"))
    assert told(judge(gpu_xid.CHECK, other, memory=memory)) == [RESET]
    over = log(xid(154, text))
    assert judge(gpu_xid.CHECK, over, memory=memory) == []
    assert judge(gpu_xid.CHECK, log(LOADED), memory=memory) == []


def test_a_driver_that_was_loaded_before_the_error_does_not_excuse_it() -> None:
    assert told(judge(gpu_xid.CHECK, log(LOADED, xid(95)))) == [RESET]


# -- the others ----------------------------------------------------------------------------------------------------


def test_a_fatal_nvswitch_error_drains_and_others_are_told_once() -> None:
    fatal = "nvidia-nvswitch1: SXid (PCI:0000:06:00.0): 20034, Fatal, Link 48 LTSSM Fault Up"
    minor = "nvidia-nvswitch1: SXid (PCI:0000:06:00.0): 12021, Non-fatal, Link 48 egress"
    assert told(judge(gpu_sxid.CHECK, log(fatal, minor, minor))) == [RESET, WARN]
    memory = then(gpu_sxid.CHECK, None, log(fatal, minor))
    assert told(judge(gpu_sxid.CHECK, log(), memory=memory)) == [RESET]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mlx5_core 0000:1a:00.0: wait_func:1136: timeout. Will cause a leak of a command resource", [DRAIN]),
        ("mlx5_core 0000:1a:00.0: poll_health:800: device's health compromised - reached miss count", [DRAIN]),
        ("mlx5_core 0000:1a:00.0: unrecoverable hardware error", [DRAIN]),
        ("mlx5_core 0000:1a:00.0: Port module event[error]: module 0, Cable error, High Temperature", [WARN]),
        ("mlx5_core 0000:1a:00.0: Port module event: module 0, Cable plugged", []),
        ("mlx5_core 0000:1a:00.0: firmware version: 28.39.1002", []),
    ],
)
def test_what_the_adapters_driver_says(text: str, expected: Any) -> None:
    findings = judge(ib_kmsg.CHECK, log(text))
    assert told(findings) == expected
    assert {finding.subject for finding in findings} <= {"0000:1a:00.0"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("EXT4-fs (nvme0n1p2): Remounting filesystem read-only", True),
        ("EXT4-fs error (device sda1): ext4_find_entry:1455: inode #2: comm ls", True),
        ("XFS (dm-0): Metadata corruption detected at xfs_agf_read_verify", True),
        ("blk_update_request: I/O error, dev sdb, sector 4096 op 0x0:(READ)", True),
        ("Buffer I/O error on device nvme1n1, logical block 0", True),
        ("nvme nvme0: controller is down; will reset: CSTS=0xffffffff", True),
        ("md/raid1:md0: Disk failure on sdb1, disabling device.", True),
        ("Buffer I/O error on device sr0, logical block 0", False),
        ("I/O error, dev loop3, sector 0 op 0x0:(READ) flags 0x0", False),
        ("EXT4-fs (vda): mounted filesystem r/w without journal", False),
    ],
)
def test_disks_and_file_systems(text: str, found: bool) -> None:
    assert told(judge(fs_errors.CHECK, log(text), DRIVES)) == ([DRAIN] if found else [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nvme nvme0: I/O 22 QID 3 timeout, reset controller", [WARN]),
        ("nvme nvme0: I/O tag 22 (1016) opcode 0x2 (Read) QID 3 timeout, aborting req_op:READ(0) size:4096", [WARN]),
        ("nvme nvme0: controller is down; will reset: CSTS=0x3, PCI_STATUS=0x10", [DRAIN]),
        ("nvme nvme0: Removing after probe failure status: -19", [DRAIN]),
        ("nvme nvme0: Disabling device after reset failure: -19", [DRAIN]),
        ("nvme nvme0: 8/0/0 default/read/poll queues", []),
        ("nvme nvme0: Shutdown timeout set to 10 seconds", []),
    ],
)
def test_an_nvme_drive_that_the_kernel_gives_up_is_found_and_one_that_it_reset_is_told(
    text: str, expected: Any
) -> None:
    # "Removing after probe failure" was looked for in small letters, and never seen.
    findings = judge(fs_errors.CHECK, log(text), DRIVES)
    assert told(findings) == expected and {finding.subject for finding in findings} <= {"nvme0"}
    kept = then(fs_errors.CHECK, None, log(text), DRIVES)
    assert told(judge(fs_errors.CHECK, log(), DRIVES, memory=kept)) == expected, "until the next boot"


def test_drives_of_which_the_log_says_nothing_any_more(tmp_path: Path) -> None:
    for name, text in {
        **{"sys/class/nvme/nvme0/state": "live", "sys/class/nvme/nvme1/state": "dead"},
        **{
            "sys/class/nvme/nvme2/state": "resetting",
            "sys/block/md0/md/degraded": "1",
            "sys/block/md1/md/degraded": "0",
        },
        **{"sys/block/md2/md/array_state": "clear", "sys/block/sda/size": "1"},
    }.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text + "\n")
    findings = judge(fs_errors.CHECK, log(), drives.read(Place(str(tmp_path))))
    assert told(findings) == [DRAIN, DRAIN] and [finding.subject for finding in findings] == ["nvme1", "md0"]
    assert drives.read(Place(str(tmp_path / "elsewhere"))) == DRIVES


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("mce: [Hardware Error]: Machine check: Processor context corrupt", True),
        ("{1}[Hardware Error]: event severity: fatal", True),
        ("[Hardware Error]: Uncorrected, software restartable error.", True),
        ("{2}[Hardware Error]: event severity: corrected", False),
        ("mce: [Hardware Error]: Machine check events logged", False),
        ("[Hardware Error]: Corrected error, no action required.", False),
    ],
)
def test_machine_checks(text: str, found: bool) -> None:
    assert told(judge(mem_mce.CHECK, log(text))) == ([RESET] if found else [])
    assert told(judge(mem_mce.CHECK, log(), memory=then(mem_mce.CHECK, None, log(text)))) == ([RESET] if found else [])
