"""A node's memory is as fast as that of its peers: a DIMM that is gone, or a channel that runs slowly, shows here."""

from __future__ import annotations

from trainmaster.health.check import Check, Compare, Context
from trainmaster.health.figures import below, numbers
from trainmaster.health.finding import Finding
from trainmaster.health.record import Any
from trainmaster.health.sources import host_load

ID = "deep.memory.speed"
COMPARE = Compare(figures=lambda value: numbers(value, "memory_copy_gbps"), share=0.7)


def judge(context: Context, value: Any) -> list[Finding]:
    """Against the site's figure."""
    return below(context, ID, COMPARE, value)


CHECK = Check(
    id=ID,
    about="memory copies more slowly than the site's figure, or than other nodes'",
    sources=(host_load.MEMORY,),
    judge=judge,
    compare=COMPARE,
)
