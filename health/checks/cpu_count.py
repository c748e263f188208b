"""All CPUs run: as many as the profile says, or as the kernel found at boot."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail, skip, unknown, warn
from trainmaster.health.record import Any
from trainmaster.health.sources import cpu


def judge(context: Context, value: Any) -> list[Finding]:
    """Count those that are online."""
    online, present = value["online"], value["present"]
    expected = context.profile.raw.get("cpus")
    if online is None and isinstance(expected, int):
        return [unknown(Action.COMMENT, f"the kernel does not say which CPUs are online, expected {expected}")]
    if online is None:
        return [skip("the kernel does not say which CPUs are online")]
    if isinstance(expected, int) and online < expected:
        return [fail(Action.DRAIN, f"{online} of {expected} CPUs", value=online, threshold=expected)]
    # Half of them are left out where hyper-threading is switched off.
    if present is not None and online not in (present, present / 2) and not isinstance(expected, int):
        return [warn(f"{online} of {present} CPUs are online", value=online, threshold=present)]
    return []


CHECK = Check(id="cpu.count", about="fewer CPUs than the profile says", sources=(cpu.SOURCE,), judge=judge)
