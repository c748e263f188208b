"""The state of a GPU in an NVSwitch fabric; N/A where there is none."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail
from trainmaster.health.gpu_values import Row, each, shown
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_query


def judge(context: Context, value: Any) -> list[Finding]:
    """What the GPUs say."""

    def one(row: Row) -> Finding | None:
        state, status = shown(row, "fabric.state"), shown(row, "fabric.status")
        health = shown(row, "fabric.health.summary")
        if state not in (None, "Completed") or (state == "Completed" and status not in (None, "Success")):
            return fail(Action.DRAIN, f"fabric {state}, {status}", value=[state, status])
        if state == "Completed" and health not in (None, "Healthy"):
            return fail(Action.DRAIN, f"fabric health {health}", value=health)
        return None

    return each(value["gpus"], one)


CHECK = Check(
    id="gpu.fabric",
    about="a GPU has not joined its NVSwitch fabric, or the fabric is unhealthy",
    sources=(gpu_query.SOURCE,),
    judge=judge,
)
