"""The huge pages that the profile names are reserved."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail, skip
from trainmaster.health.record import Any
from trainmaster.health.sources import memory


def judge(context: Context, value: Any) -> list[Finding]:
    """`{"hugepages": {"total": 1024}}`, of the default size."""
    expected = context.profile.table("hugepages").get("total")
    if not isinstance(expected, int):
        return [skip("the profile names no huge pages")]
    there = value["meminfo"].get("HugePages_Total", 0)
    if there >= expected:
        return []
    return [fail(Action.DRAIN, f"{there} of {expected} huge pages", value=there, threshold=expected)]


CHECK = Check(
    id="limits.hugepages", about="fewer huge pages than the profile says", sources=(memory.SOURCE,), judge=judge
)
