"""Machine checks in the kernel's log that were not corrected."""

from __future__ import annotations

import re

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail
from trainmaster.health.record import Any
from trainmaster.health.sources import kernel_log

# "mce: [Hardware Error]: …", "{1}[Hardware Error]: event severity: fatal" (APEI, ACPI's way to tell).
_BAD = (
    r"\[Hardware Error\].*"
    r"(event severity: (fatal|recoverable)|Uncorrected|UECC|\bUE\b|PCC|Machine check: Processor context)"
)
_CORRECTED = r"(?i)event severity: corrected|Corrected error|\bCE\b"


def after(memory: Any, records: list[list[Any]]) -> list[str]:
    """The lines of this boot, at most ten."""
    lines = list(memory) if isinstance(memory, list) else []
    lines += [
        str(record[3]) for record in records if re.search(_BAD, record[3]) and not re.search(_CORRECTED, record[3])
    ]
    return list(dict.fromkeys(line[:200] for line in lines))[:10]


def judge(context: Context, value: Any) -> list[Finding]:
    """One finding for all of them."""
    lines = after(context.memory, value["records"])
    if not lines:
        return []
    detail = lines[0].partition("[Hardware Error]:")[2].strip()[:80] or "uncorrected"
    return [fail(Action.DRAIN_RESET, detail, value=lines)]


def remember(context: Context, value: Any) -> Any:
    """The lines."""
    return after(context.memory, value["records"])


CHECK = Check(
    id="mem.mce",
    about="a machine check that was not corrected",
    sources=(kernel_log.SOURCE,),
    judge=judge,
    remember=remember,
)
