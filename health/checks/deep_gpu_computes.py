"""A GPU under load computes the same on all of its multiprocessors."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_load


def judge(context: Context, value: Any) -> list[Finding]:
    """Wrong results, and measurements that the driver ended."""
    found = []
    for figures in value["gpus"]:
        where = str(figures.get("bus_id") or f"GPU {figures.get('index')}")
        wrong = figures.get("tensor_wrong_warps")
        if "error" in figures:
            found.append(fail(Action.DRAIN, f"under load: {figures['error']}", subject=where, value=figures["error"]))
        elif wrong:
            places = ", ".join(str(place) for place in figures.get("tensor_wrong_multiprocessors", [])[:8])
            detail = f"{wrong} wrong results, on multiprocessors {places}"
            found.append(fail(Action.DRAIN, detail, subject=where, value=wrong, threshold=0))
    return found


CHECK = Check(
    id="deep.gpu.computes",
    about="a GPU under load computes wrongly, or the driver ends its work",
    sources=(gpu_load.SOURCE,),
    judge=judge,
)
