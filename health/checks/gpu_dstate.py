"""A process that sleeps uninterruptibly inside the NVIDIA driver, three passes long: the driver is stuck."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail
from trainmaster.health.record import Any
from trainmaster.health.sources import processes

_WAITS = ("nv_", "nvidia", "uvm_", "rm_", "os_acquire", "_nv")


def judge(context: Context, value: Any) -> list[Finding]:
    """The process is named by pid and start time, so that another with its number is not taken for it."""
    found = []
    for pid, started, command, where in value["stuck"]:
        if command.startswith("nvidia") or where.startswith(_WAITS):
            detail = f"{command} hangs in the driver" + (f" ({where})" if where else "")
            found.append(fail(Action.DRAIN, detail, subject=f"pid {pid} started {started}", value=where))
    return found


CHECK = Check(
    id="gpu.dstate",
    about="a process hangs inside the NVIDIA driver for three passes",
    sources=(processes.SOURCE,),
    judge=judge,
    strikes=3,
)
