"""Every adapter and port that the profile names, by name: a count would not show that one is gone and another came."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail, skip
from trainmaster.health.record import Any
from trainmaster.health.sources import infiniband


def judge(context: Context, value: Any) -> list[Finding]:
    """Names in the profile are `mlx5_0` or `mlx5_0/1`."""
    expected = context.profile.table("ib")
    if not expected:
        return [skip("the profile names no adapter")]
    found = []
    for name in sorted(expected):
        device, _, port = name.partition("/")
        if not value:
            # All at once: the driver is not loaded (yet, or for the moment). It may come back without a boot.
            found.append(fail(Action.DRAIN, "no adapter is here: is the driver loaded?", subject=name))
        elif device not in value:
            found.append(fail(Action.DRAIN_REQUEUE, "the adapter is missing", subject=name))
        elif port and port not in value[device]["ports"]:
            found.append(fail(Action.DRAIN_REQUEUE, "the port is missing", subject=name))
    return found


CHECK = Check(
    id="ib.present",
    about="an InfiniBand adapter or port that the profile names is missing",
    sources=(infiniband.SOURCE,),
    judge=judge,
)
