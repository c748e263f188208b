"""Zombies: a few come and go, many mean that something no longer collects its children."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Finding, warn
from trainmaster.health.record import Any
from trainmaster.health.sources import processes

LIMIT = 200


def judge(context: Context, value: Any) -> list[Finding]:
    """Count them."""
    limit = context.profile.threshold("proc.zombies", LIMIT)
    count = value["zombies"]
    return [warn(f"{count} zombies", value=count, threshold=limit)] if count > limit else []


CHECK = Check(id="proc.zombies", about="very many zombies", sources=(processes.SOURCE,), judge=judge)
