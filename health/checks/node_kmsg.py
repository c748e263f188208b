"""Whether all of the kernel's log was seen: what was overwritten before anybody read it may have told of a fault."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Finding, warn
from trainmaster.health.record import Any
from trainmaster.health.sources import kernel_log


def judge(context: Context, value: Any) -> list[Finding]:
    """A gap in the records' numbers."""
    lost = value["lost"]
    return [warn(f"{lost} kernel log records were overwritten unread", value=lost)] if lost else []


CHECK = Check(
    id="node.kmsg",
    about="kernel log records were overwritten before they were read",
    sources=(kernel_log.SOURCE,),
    judge=judge,
)
