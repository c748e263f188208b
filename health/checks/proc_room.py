"""Room for new processes and open files."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail, warn
from trainmaster.health.record import Any
from trainmaster.health.sources import processes

WARN, DRAIN = 80.0, 95.0


def judge(context: Context, value: Any) -> list[Finding]:
    """Threads use up process ids, too."""
    found = []
    limits = [limit for limit in (value["pid_max"], value["threads_max"]) if limit]
    pairs = (
        ("process ids", value["threads"], min(limits) if limits else None),
        ("open files", value["files"], value["files_max"]),
    )
    for words, used, limit in pairs:
        if not used or not limit:
            continue
        share = 100 * used / limit
        detail = f"{share:.0f}% of the {words} are in use"
        if share >= context.profile.threshold("proc.room", DRAIN):
            found.append(fail(Action.DRAIN, detail, value=used, threshold=limit))
        elif share >= WARN:
            found.append(warn(detail, value=used, threshold=limit))
    return found


CHECK = Check(id="proc.room", about="process ids or open files run out", sources=(processes.SOURCE,), judge=judge)
