"""A node's processors do as much as those of its peers."""

from __future__ import annotations

from trainmaster.health.check import Check, Compare, Context
from trainmaster.health.figures import below, numbers
from trainmaster.health.finding import Finding
from trainmaster.health.record import Any
from trainmaster.health.sources import host_load

ID = "deep.cpu.speed"
COMPARE = Compare(figures=lambda value: numbers(value, "cpu_hash_mbps"), share=0.7)


def judge(context: Context, value: Any) -> list[Finding]:
    """Against the site's figure."""
    return below(context, ID, COMPARE, value)


CHECK = Check(
    id=ID,
    about="all cores together compute more slowly than the site's figure, or than other nodes",
    sources=(host_load.CPU,),
    judge=judge,
    compare=COMPARE,
)
