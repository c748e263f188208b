"""A node's memory gives back what was written, each bit as 0 and as 1."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail, unknown
from trainmaster.health.record import Any
from trainmaster.health.sources import host_load


def judge(context: Context, value: Any) -> list[Finding]:
    """Blocks that came back differently."""
    wrong, tested = value["memory_wrong_blocks"], value["memory_tested_mib"]
    if wrong:
        detail = f"{wrong} blocks of 2 MiB came back differently: {', '.join(value['memory_wrong'][:3])}"
        return [fail(Action.DRAIN, detail, value=wrong, threshold=0)]
    if not tested:
        return [unknown(Action.COMMENT, "no memory was free to be tested")]
    return []


CHECK = Check(
    id="deep.memory.patterns",
    about="memory does not give back what was written",
    sources=(host_load.PATTERNS,),
    judge=judge,
)
