"""What tells the time. A kernel that lost its trust in the TSC falls back to a clock that is a hundred times slower."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Finding, skip, warn
from trainmaster.health.record import Any
from trainmaster.health.sources import cpu

SLOW = ("hpet", "acpi_pm", "jiffies", "refined-jiffies")


def judge(context: Context, value: Any) -> list[Finding]:
    """The profile's clock, or any that is not slow."""
    now = value["clocksource"]
    if now is None:
        return [skip("the kernel does not say what tells the time")]
    expected = context.profile.raw.get("clocksource")
    if isinstance(expected, str) and now != expected:
        return [warn(f"{now}, expected {expected}", value=now, threshold=expected)]
    return [warn(f"{now} tells the time", value=now)] if now in SLOW and expected is None else []


CHECK = Check(id="cpu.clocksource", about="a slow clock tells the time", sources=(cpu.SOURCE,), judge=judge)
