"""Retired pages, on GPUs before the A100: pending ones need a reset, 63 are as many as there may be."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail
from trainmaster.health.gpu_values import Row, count, each, truth
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_query


def judge(context: Context, value: Any) -> list[Finding]:
    """What the GPUs say."""

    def one(row: Row) -> Finding | None:
        counts = (count(row, f"retired_pages.{kind}.count") for kind in ("double_bit", "single_bit_ecc"))
        retired = sum(number or 0 for number in counts)
        limit = context.profile.threshold("gpu.pages", 63)
        if retired >= limit:
            return fail(Action.DRAIN, f"{retired} pages retired", value=retired, threshold=limit)
        if truth(row, "retired_pages.pending"):
            return fail(Action.DRAIN_RESET, "page retirement pending", value=True)
        return None

    return each(value["gpus"], one)


CHECK = Check(
    id="gpu.pages",
    about="pages of a GPU's memory wait for a reset to be retired, or 63 are retired",
    sources=(gpu_query.SOURCE,),
    judge=judge,
)
