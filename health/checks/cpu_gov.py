"""The frequency governor that the profile names, on every CPU."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Finding, skip, warn
from trainmaster.health.record import Any
from trainmaster.health.sources import cpu


def judge(context: Context, value: Any) -> list[Finding]:
    """Any other governor."""
    expected = context.profile.raw.get("governor")
    if not isinstance(expected, str) or not value["governors"]:
        return [skip("the profile names no governor, or the CPUs have none")]
    others = {name: count for name, count in value["governors"].items() if name != expected}
    if not others:
        return []
    shown = ", ".join(f"{count} {name}" for name, count in sorted(others.items()))
    return [warn(f"{shown}, expected {expected}", value=others, threshold=expected)]


CHECK = Check(id="cpu.gov", about="another frequency governor than the profile's", sources=(cpu.SOURCE,), judge=judge)
