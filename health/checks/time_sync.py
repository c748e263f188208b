"""The clock is kept in step with a server. munge refuses what is minutes off, and then nothing runs here.

The kernel's own bound (maxerror) grows while nobody disciplines the clock; how far it really is off only the time
daemon knows.
"""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Finding, warn
from trainmaster.health.record import Any
from trainmaster.health.sources import clock


def judge(context: Context, value: Any) -> list[Finding]:
    """Unsynchronised, by either sign."""
    if clock.synchronised(value):
        return []
    bound_s = value["maxerror_us"] / 1e6
    return [warn(f"the clock is not synchronised (off by at most {bound_s:.0f} s)", value=value["status"])]


CHECK = Check(id="time.sync", about="nobody keeps the clock right", sources=(clock.SOURCE,), judge=judge)
