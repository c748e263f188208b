"""Rows that were replaced after uncorrectable errors. A few are what the mechanism is for."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail
from trainmaster.health.gpu_values import Row, count, each
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_query


def judge(context: Context, value: Any) -> list[Finding]:
    """What the GPUs say."""

    def one(row: Row) -> Finding | None:
        rows = count(row, "remapped_rows.uncorrectable")
        limit = context.profile.threshold("gpu.remap.uncorr", 512)
        if rows is None or rows <= limit:
            return None
        return fail(Action.DRAIN, f"{rows} rows remapped", value=rows, threshold=limit)

    return each(value["gpus"], one)


CHECK = Check(
    id="gpu.remap.uncorr",
    about="more than 512 rows of a GPU's memory were remapped after uncorrectable errors",
    sources=(gpu_query.SOURCE,),
    judge=judge,
)
