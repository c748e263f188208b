"""Every expected GPU is on the PCI bus and answers there, asked without the driver.

A GPU that has fallen off the bus stays listed, and reads as ones: its configuration space begins with ffffffff.
"""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail, skip
from trainmaster.health.record import Any
from trainmaster.health.sources import pci


def judge(context: Context, value: Any) -> list[Finding]:
    """Count them, and look at their first bytes."""
    gpus, expected = value["gpus"], context.profile.gpus
    found = [
        fail(Action.DRAIN_REQUEUE, "fell off the PCI bus", subject=where, value=facts["config"])
        for where, facts in sorted(gpus.items())
        if facts.get("config") == "ffffffff"
    ]
    if expected and len(gpus) < expected:
        detail = f"{len(gpus)} of {expected} on the PCI bus"
        found.append(fail(Action.DRAIN_REQUEUE, detail, value=len(gpus), threshold=expected))
    if not gpus and not expected:
        found.append(skip("no GPU is here, and none is expected"))
    return found


CHECK = Check(
    id="gpu.present",
    about="a GPU is missing from the PCI bus, or no longer answers on it",
    sources=(pci.SOURCE,),
    judge=judge,
)
