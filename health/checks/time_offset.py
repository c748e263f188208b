"""How far the clock is off. munge refuses credentials that are minutes old or not yet valid: then nothing runs here."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail, warn
from trainmaster.health.record import Any
from trainmaster.health.sources import tracking

DRAIN_S, WARN_S = 60.0, 1.0


def judge(context: Context, value: Any) -> list[Finding]:
    """Either way; a daemon that has no source yet knows nothing of an offset."""
    if value["leap"] == "Not synchronised":
        return [warn("chronyd has no source that it follows", value=value["leap"])]
    offset_s, limit_s = abs(value["offset_s"]), context.profile.threshold("time.offset", DRAIN_S)
    if offset_s > limit_s:
        return [fail(Action.DRAIN, f"the clock is off by {offset_s:.0f} s", value=offset_s, threshold=limit_s)]
    if offset_s > WARN_S:
        return [warn(f"the clock is off by {offset_s:.1f} s", value=offset_s, threshold=WARN_S)]
    return []


CHECK = Check(id="time.offset", about="the clock is off, by chrony's measure", sources=(tracking.SOURCE,), judge=judge)
