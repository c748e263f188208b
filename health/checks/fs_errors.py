"""Disks and file systems that the kernel complains about."""

from __future__ import annotations

import re

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail
from trainmaster.health.record import Any
from trainmaster.health.sources import kernel_log

PATTERNS = (
    (r"EXT4-fs \(([\w-]+)\): Remounting filesystem read-only", "remounted read-only"),
    (r"EXT4-fs error \(device ([\w-]+)\)", "file system error"),
    (r"XFS \(([\w-]+)\): .*[Cc]orruption", "file system corruption"),
    (r"I/O error,? (?:on )?dev(?:ice)? ([\w-]+)", "I/O error"),
    (
        r"nvme (nvme\d+): .*(?:controller is down|[Rr]emoving after probe failure)",
        "NVMe controller is down",
    ),
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


def judge(context: Context, value: Any) -> list[Finding]:
    """Each device and kind of trouble once."""
    return [
        fail(Action.DRAIN, words, subject=device) for device, words in after(context.memory, value["records"]).values()
    ]


def remember(context: Context, value: Any) -> Any:
    """What is known."""
    return after(context.memory, value["records"])


CHECK = Check(
    id="fs.errors",
    about="the kernel reported a failing disk or file system",
    sources=(kernel_log.SOURCE,),
    judge=judge,
    remember=remember,
)
