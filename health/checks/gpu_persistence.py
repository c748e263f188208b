"""Without persistence mode the driver unloads between jobs, and each tool call takes seconds."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Finding, warn
from trainmaster.health.gpu_values import Row, each, truth
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_query


def judge(context: Context, value: Any) -> list[Finding]:
    """What the GPUs say."""

    def one(row: Row) -> Finding | None:
        return warn("persistence mode is off", value=False) if truth(row, "persistence_mode") is False else None

    return each(value["gpus"], one)


CHECK = Check(
    id="gpu.persistence",
    about="persistence mode is off",
    sources=(gpu_query.SOURCE,),
    judge=judge,
)
