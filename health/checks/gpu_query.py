"""Whether the driver shows every GPU that is on the PCI bus and can read all of it. Trouble with the tool is told here.

nvidia-smi can end with 0 and yet show "ERR!", or fewer GPUs than there are.
"""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail
from trainmaster.health.gpu_values import address, broken
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_query, pci


def judge(context: Context, value: Any, bus: Any) -> list[Finding]:
    """Missing rows and unreadable values."""
    found = []
    there = {address(row) for row in value["gpus"]}
    for where in sorted(set(bus["gpus"]) - there):
        found.append(fail(Action.DRAIN, "the driver does not show it", subject=where))
    for row in value["gpus"]:
        bad = sorted(field for field, text in row.items() if broken(text))
        if bad:
            detail = f"{row[bad[0]].strip('[]')} for {bad[0]}" + (f" and {len(bad) - 1} more" if bad[1:] else "")
            found.append(fail(Action.DRAIN, detail, subject=address(row), value=bad))
    return found


CHECK = Check(
    id="gpu.query",
    about="nvidia-smi fails, is missing, shows too few GPUs or cannot read one",
    sources=(gpu_query.SOURCE, pci.SOURCE),
    judge=judge,
)
