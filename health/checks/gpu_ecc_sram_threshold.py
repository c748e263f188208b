"""The driver's own verdict that a GPU's SRAM has had too many errors over its life: it is to be replaced."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail
from trainmaster.health.gpu_values import Row, each, truth
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_query


def judge(context: Context, value: Any) -> list[Finding]:
    """What the GPUs say."""

    def one(row: Row) -> Finding | None:
        exceeded = truth(row, "ecc.errors.uncorrected.aggregate.sram.thresholdExceeded")
        return fail(Action.DRAIN, "SRAM errors past the threshold", value=True) if exceeded else None

    return each(value["gpus"], one)


CHECK = Check(
    id="gpu.ecc.sram_threshold",
    about="the driver says that a GPU's SRAM has exceeded its error threshold",
    sources=(gpu_query.SOURCE,),
    judge=judge,
)
