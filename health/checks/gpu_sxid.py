"""The NVSwitch driver's error reports (SXid): fatal ones stop the fabric until it is reset."""

from __future__ import annotations

import re

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail, warn
from trainmaster.health.record import Any
from trainmaster.health.sources import kernel_log

_SXID = r"nvidia-nvswitch(\d+): SXid \((?:PCI:)?([0-9A-Fa-f:.]+)\): (\d+), (Fatal|Non-fatal)?,?\s*(.*)"
_LOADED = "nvidia-nvlink: Nvlink Core is being initialized"


def after(memory: Any, records: list[list[Any]]) -> dict[str, list[Any]]:
    """The fatal reports since the driver was loaded: {switch and number: [switch, number]}."""
    active = dict(memory) if isinstance(memory, dict) else {}
    for record in records:
        text = str(record[3])
        if text.startswith(_LOADED):
            active = {}
        match = re.match(_SXID, text)
        if match is not None and match[4] == "Fatal":
            active[f"{match[2]} {match[3]}"] = [match[2].lower(), int(match[3])]
    return active


def judge(context: Context, value: Any) -> list[Finding]:
    """Fatal ones drain; others are told once."""
    active = after(context.memory, value["records"])
    found = [
        fail(Action.DRAIN_RESET, f"{number} fatal", subject=switch, value=number) for switch, number in active.values()
    ]
    told = set()
    for record in value["records"]:
        match = re.match(_SXID, str(record[3]))
        if match is not None and match[4] != "Fatal" and (match[2], match[3]) not in told:
            told.add((match[2], match[3]))
            found.append(warn(f"{match[3]} not fatal", subject=match[2].lower(), value=int(match[3])))
    return found


def remember(context: Context, value: Any) -> Any:
    """The fatal reports."""
    return after(context.memory, value["records"])


CHECK = Check(
    id="gpu.sxid",
    about="an NVSwitch reported a fatal error",
    sources=(kernel_log.SOURCE,),
    judge=judge,
    remember=remember,
)
