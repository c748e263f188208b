"""A memory row that had to be replaced and could not be: the GPU has no spare rows left there."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail
from trainmaster.health.gpu_values import Row, each, truth
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_query


def judge(context: Context, value: Any) -> list[Finding]:
    """What the GPUs say."""

    def one(row: Row) -> Finding | None:
        failed = truth(row, "remapped_rows.failure")
        return fail(Action.DRAIN, "row remapping failed", value=True) if failed else None

    return each(value["gpus"], one)


CHECK = Check(
    id="gpu.remap.failure",
    about="a row of a GPU's memory could not be remapped",
    sources=(gpu_query.SOURCE,),
    judge=judge,
)
