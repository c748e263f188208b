"""As much memory as the profile says: a DIMM that failed its training at boot is simply not there."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail, skip, warn
from trainmaster.health.record import Any
from trainmaster.health.sources import memory

TOLERANCE = 0.02


def judge(context: Context, value: Any) -> list[Finding]:
    """The whole, and the NUMA nodes among each other."""
    found = []
    sizes = {name: kib for name, kib in value["nodes"].items() if kib}
    if len(sizes) > 1 and min(sizes.values()) < 0.8 * max(sizes.values()):
        small = min(sizes, key=lambda name: sizes[name])
        detail = f"{sizes[small] // 1024} MiB, others have {max(sizes.values()) // 1024}"
        found.append(warn(detail, subject=small, value=sizes[small]))
    expected = context.profile.raw.get("memory_mib")
    if not isinstance(expected, int):
        return found or [skip("the profile names no memory_mib")]
    there = value["meminfo"]["MemTotal"] // 1024
    if there < expected * (1 - TOLERANCE):
        found.append(fail(Action.DRAIN, f"{there} of {expected} MiB", value=there, threshold=expected))
    return found


CHECK = Check(id="mem.total", about="less memory than the profile says", sources=(memory.SOURCE,), judge=judge)
