"""Memory of a GPU in use while no job runs here: a context that its process, or the driver, did not give back.

The next job would fail for want of memory. It has to stay for three passes: a driver takes seconds to clean up.
"""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Finding, skip
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_apps, gpu_query, processes


def judge(context: Context, value: Any, table: Any) -> list[Finding]:
    """Only when no slurmstepd is here: a job may use its GPUs."""
    if table["stepds"]:
        return [skip("a job runs here")]
    limit_mib = context.profile.threshold("gpu.leftover", gpu_apps.IDLE_MIB)
    return gpu_apps.on({"gpus": value["gpus"], "apps": []}, (), limit_mib)


CHECK = Check(
    id="gpu.leftover",
    about="a GPU's memory is in use and no job runs here, in three passes",
    sources=(gpu_query.SOURCE, processes.SOURCE),
    judge=judge,
    strikes=3,
)
