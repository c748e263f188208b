"""A memory row is to be replaced at the next reset of the GPU."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail
from trainmaster.health.gpu_values import Row, each, truth
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_query


def judge(context: Context, value: Any) -> list[Finding]:
    """What the GPUs say."""

    def one(row: Row) -> Finding | None:
        pending = truth(row, "remapped_rows.pending")
        return fail(Action.DRAIN_RESET, "row remapping pending", value=True) if pending else None

    return each(value["gpus"], one)


CHECK = Check(
    id="gpu.remap.pending",
    about="a row of a GPU's memory waits for a reset to be remapped",
    sources=(gpu_query.SOURCE,),
    judge=judge,
)
