"""The hardware slows a GPU down: power brake, heat, or both. A cap in software (0x4, 0x20) is normal under load."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail
from trainmaster.health.gpu_values import Row, count, each
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_query


def judge(context: Context, value: Any) -> list[Finding]:
    """What the GPUs say."""

    def one(row: Row) -> Finding | None:
        reasons = count(row, "clocks_event_reasons.active") or 0
        # nvml.h: 0x08 hardware slowdown, 0x40 thermal, 0x80 power brake.
        names = [name for bit, name in ((0x08, "slowdown"), (0x40, "heat"), (0x80, "power brake")) if reasons & bit]
        if not names:
            return None
        return fail(Action.DRAIN, "hardware " + " and ".join(names), value=f"{reasons:#x}")

    return each(value["gpus"], one)


CHECK = Check(
    id="gpu.throttle",
    about="the hardware slows a GPU down (power brake or heat) in three passes",
    sources=(gpu_query.SOURCE,),
    judge=judge,
    strikes=3,
)
