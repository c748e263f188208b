"""Every adapter and port that the profile names, by name: a count would not show that one is gone and another came.

When none is there at all, it may be the only one that is lost, or the driver that is not loaded (yet, or while it is
exchanged). The bus tells: a card that is in its slot comes back without a boot, one that is not is lost for the job.
"""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail, skip
from trainmaster.health.record import Any
from trainmaster.health.sources import infiniband, rails


def judge(context: Context, value: Any, gone: Any) -> list[Finding]:
    """Names in the profile are `mlx5_0` or `mlx5_0/1`; `gone` are the adapters whose slot is empty."""
    expected = context.profile.table("ib")
    if not expected:
        return [skip("the profile names no adapter")]
    found = []
    for name in sorted(expected):
        device, _, port = name.partition("/")
        if not value and device not in gone:
            found.append(fail(Action.DRAIN, "no adapter is here: is the driver loaded?", subject=name))
        elif device not in value:
            found.append(fail(Action.DRAIN_REQUEUE, "the adapter is missing", subject=name))
        elif port and port not in value[device]["ports"]:
            found.append(fail(Action.DRAIN_REQUEUE, "the port is missing", subject=name))
    return found


CHECK = Check(
    id="ib.present",
    about="an InfiniBand adapter or port that the profile names is missing",
    sources=(infiniband.SOURCE, rails.SLOTS),
    judge=judge,
)
