"""All of a GPU's memory gives back what was written, each bit as 0 and as 1."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_load


def judge(context: Context, value: Any) -> list[Finding]:
    """Words that came back differently."""
    found = []
    for figures in value["gpus"]:
        wrong = figures.get("memory_wrong_words")
        if wrong:
            bits, first = figures.get("memory_wrong_bits"), figures.get("memory_wrong_from_byte")
            detail = f"{wrong} words came back differently, bits {bits}, from byte {first}"
            found.append(fail(Action.DRAIN, detail, subject=str(figures.get("bus_id")), value=wrong, threshold=0))
    return found


CHECK = Check(
    id="deep.gpu.memory",
    about="a GPU's memory does not give back what was written",
    sources=(gpu_load.SOURCE,),
    judge=judge,
)
