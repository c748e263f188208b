"""How many degrees a GPU is below the temperature at which it slows down, whatever its model."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail
from trainmaster.health.gpu_values import Row, count, each
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_query


def judge(context: Context, value: Any) -> list[Finding]:
    """What the GPUs say."""

    def one(row: Row) -> Finding | None:
        margin = count(row, "temperature.gpu.tlimit")
        if margin is None or margin > context.profile.threshold("gpu.temp", 0):
            return None
        return fail(Action.DRAIN, f"{margin} C to its limit", value=margin, threshold=0)

    return each(value["gpus"], one)


CHECK = Check(
    id="gpu.temp",
    about="a GPU is at its temperature limit in three passes",
    sources=(gpu_query.SOURCE,),
    judge=judge,
    strikes=3,
)
