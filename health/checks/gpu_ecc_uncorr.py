"""Uncorrectable memory errors since the driver was loaded. A reset clears them; a lifetime count says nothing."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail
from trainmaster.health.gpu_values import Row, count, each
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_query


def judge(context: Context, value: Any) -> list[Finding]:
    """What the GPUs say."""

    def one(row: Row) -> Finding | None:
        errors = count(row, "ecc.errors.uncorrected.volatile.total")
        if not errors:
            return None
        return fail(Action.DRAIN_RESET, f"{errors} uncorrectable", value=errors, threshold=0)

    return each(value["gpus"], one)


CHECK = Check(
    id="gpu.ecc.uncorr",
    about="uncorrectable ECC errors since the driver was loaded: more than none",
    sources=(gpu_query.SOURCE,),
    judge=judge,
)
