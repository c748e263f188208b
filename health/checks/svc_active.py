"""The units that the profile names are active."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail, warn
from trainmaster.health.record import Any
from trainmaster.health.sources import units


def judge(context: Context, value: Any) -> list[Finding]:
    """A unit that is just starting is given time."""
    found = []
    for unit, (active, sub) in sorted(value.items()):
        if active in ("activating", "reloading"):
            found.append(warn(f"is {active} ({sub})", subject=unit, value=active))
        elif active != "active":
            found.append(fail(Action.DRAIN, f"is {active} ({sub})", subject=unit, value=active))
    return found


CHECK = Check(
    id="svc.active", about="a service that the profile names is not active", sources=(units.SOURCE,), judge=judge
)
