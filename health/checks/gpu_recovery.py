"""What the driver itself says that a GPU needs (driver 570 and later)."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail, warn
from trainmaster.health.gpu_values import Row, each, shown
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_query


def judge(context: Context, value: Any) -> list[Finding]:
    """What the GPUs say."""

    def one(row: Row) -> Finding | None:
        asked = shown(row, "gpu_recovery_action")
        if asked is None or asked.lower() == "none":
            return None
        if asked.lower() == "drain p2p":
            # NVLink to other GPUs is lost and the GPU itself is fine.
            return warn(f"the driver asks for {asked}", value=asked)
        return fail(Action.DRAIN_RESET, f"the driver asks for {asked}", value=asked)

    return each(value["gpus"], one)


CHECK = Check(
    id="gpu.recovery",
    about="the driver asks for a GPU to be reset, or its node to be rebooted or drained",
    sources=(gpu_query.SOURCE,),
    judge=judge,
)
