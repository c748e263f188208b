"""No file system is full, neither of bytes nor of inodes."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail, warn
from trainmaster.health.record import Any
from trainmaster.health.sources import space

WARN, DRAIN = 85.0, 95.0


def judge(context: Context, value: Any) -> list[Finding]:
    """`fs.usage` and `fs.usage:/path` among the profile's thresholds replace the 95 %; the warning comes ten before."""
    found = []
    for path, facts in sorted(value.items()):
        limit = context.profile.threshold(f"fs.usage:{path}", context.profile.threshold("fs.usage", DRAIN))
        for key, words in (("used", "full"), ("inodes", "of its inodes used")):
            share = facts.get(key, 0.0)
            if share >= limit:
                found.append(fail(Action.DRAIN, f"{share:g}% {words}", subject=path, value=share, threshold=limit))
            elif share >= limit - (DRAIN - WARN):
                found.append(warn(f"{share:g}% {words}", subject=path, value=share, threshold=limit))
    return found


CHECK = Check(id="fs.usage", about="a file system is full", sources=(space.SOURCE,), judge=judge)
