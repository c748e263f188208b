"""A GPU on fewer PCIe lanes than it has. Idle GPUs lower the speed of their lanes, never the number."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail
from trainmaster.health.gpu_values import Row, count, each
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_query


def judge(context: Context, value: Any) -> list[Finding]:
    """What the GPUs say."""

    def one(row: Row) -> Finding | None:
        now, full = count(row, "pcie.link.width.current"), count(row, "pcie.link.width.max")
        if now is None or full is None or now >= full:
            return None
        return fail(Action.DRAIN_RESET, f"x{now} of x{full}", value=now, threshold=full)

    return each(value["gpus"], one)


CHECK = Check(
    id="gpu.pcie.width",
    about="a GPU runs on fewer PCIe lanes than it has",
    sources=(gpu_query.SOURCE,),
    judge=judge,
)
