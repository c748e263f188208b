"""How much memory slurmd, and so every job, may lock. InfiniBand needs it, and fails in odd ways without."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail, skip
from trainmaster.health.record import Any
from trainmaster.health.sources import processes

LEAST_GIB = 16.0


def judge(context: Context, value: Any) -> list[Finding]:
    """slurmd's own limit; the one of whoever runs the check says nothing."""
    if value["slurmd"] is None:
        return [skip("no slurmd runs here")]
    if not context.profile.table("ib") and not context.profile.gpus:
        return [skip("the profile names neither GPUs nor InfiniBand")]
    text = value["slurmd"].get("Max locked memory", "unlimited")
    least = context.profile.threshold("limits.memlock", LEAST_GIB)
    if not text.isdecimal() or int(text) >= least * (1 << 30):
        return []
    detail = f"slurmd may lock {int(text) // (1 << 10)} KiB"
    return [fail(Action.DRAIN, detail, value=int(text), threshold=int(least * (1 << 30)))]


CHECK = Check(
    id="limits.memlock",
    about="slurmd, and so every job, may lock too little memory",
    sources=(processes.SOURCE,),
    judge=judge,
)
