"""A GPU at work on a slower PCIe generation than it can; an idle one slows its link down by itself."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Finding, warn
from trainmaster.health.gpu_values import Row, count, each, shown
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_query


def judge(context: Context, value: Any) -> list[Finding]:
    """What the GPUs say."""

    def one(row: Row) -> Finding | None:
        now = count(row, "pcie.link.gen.current")
        full = count(row, "pcie.link.gen.gpumax") or count(row, "pcie.link.gen.max")
        busy = shown(row, "pstate") == "P0" and (count(row, "utilization.gpu") or 0) > 0
        if now is None or full is None or now >= full or not busy:
            return None
        return warn(f"generation {now} of {full}", value=now, threshold=full)

    return each(value["gpus"], one)


CHECK = Check(
    id="gpu.pcie.gen",
    about="a busy GPU's PCIe link is of an older generation than it can be",
    sources=(gpu_query.SOURCE,),
    judge=judge,
)
