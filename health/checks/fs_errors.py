"""Disks and file systems that the kernel complains about or has given up, and RAID arrays that lack a disk.

One command to an NVMe drive that timed out is only told: the kernel sends an abort or resets the drive, and mostly that
helps. When it does not, it says so, and the drive's state is dead.
"""

from __future__ import annotations

import re

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail, warn
from trainmaster.health.record import Any
from trainmaster.health.sources import drives, kernel_log

DOWN = "NVMe controller is down"
TIMED_OUT = "an NVMe command timed out"
PATTERNS = (
    (r"EXT4-fs \(([\w-]+)\): Remounting filesystem read-only", "remounted read-only"),
    (r"EXT4-fs error \(device ([\w-]+)\)", "file system error"),
    (r"XFS \(([\w-]+)\): .*[Cc]orruption", "file system corruption"),
    (r"I/O error,? (?:on )?dev(?:ice)? ([\w-]+)", "I/O error"),
    (
        r"nvme (nvme\d+): .*(?:controller is down|after (?:probe|reset) failure)",
        DOWN,
    ),
    (r"nvme (nvme\d+): .* timeout, ", TIMED_OUT),
    (r"md/raid[^:]*:(md\d+): Disk failure", "RAID lost a disk"),
)
# Media that come and go; a drive without a disk in it has I/O errors and no fault.
_PASSING = r"^(sr|fd|loop)\d+$"


def after(memory: Any, records: list[list[Any]]) -> dict[str, list[str]]:
    """What is known of this boot: {device and words: [device, words]}."""
    active = dict(memory) if isinstance(memory, dict) else {}
    for record in records:
        for pattern, words in PATTERNS:
            match = re.search(pattern, str(record[3]))
            if match is not None and not re.match(_PASSING, match[1]):
                active[f"{match[1]} {words}"] = [match[1], words]
                break
    return active


def judge(context: Context, value: Any, disks: Any) -> list[Finding]:
    """Each device and kind of trouble once."""
    known = after(context.memory, value["records"])
    for name, state in disks["nvme"].items():
        if state == "dead":
            known.setdefault(f"{name} {DOWN}", [name, DOWN])
    found = [
        warn(words, subject=device) if words == TIMED_OUT else fail(Action.DRAIN, words, subject=device)
        for device, words in known.values()
    ]
    for name, lacking in sorted(disks["degraded"].items()):
        if lacking > 0:
            detail = f"RAID lacks {lacking} of its disks"
            found.append(fail(Action.DRAIN, detail, subject=name, value=lacking, threshold=0))
    return found


def remember(context: Context, value: Any, disks: Any) -> Any:
    """What the log has told."""
    return after(context.memory, value["records"])


CHECK = Check(
    id="fs.errors",
    about="the kernel reported a failing disk or file system, or a RAID array lacks a disk",
    sources=(kernel_log.SOURCE, drives.SOURCE),
    judge=judge,
    remember=remember,
)
