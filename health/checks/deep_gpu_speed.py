"""A GPU is as fast as its model, or else as its neighbours in the node."""

from __future__ import annotations

from trainmaster.health import gpu_models
from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_load

SHARE = 0.92
"""Of the expected figure. Four runs on one healthy H100 lay within 2 %; chips and cooling differ by some more."""
FIGURES = ("tensor_tflops", "memory_copy_gbps", "memory_write_gbps", "memory_read_gbps")


def judge(context: Context, value: Any) -> list[Finding]:
    """Compare with the site's figures, the model's, or the median of the node's GPUs, in this order.

    PCIe is measured but not judged: it depends on which NUMA node the host's memory happens to lie.
    """
    share = context.profile.threshold("deep.gpu.speed", SHARE)
    own = context.profile.table("gpu").get("expected")
    found = []
    measured = [figures for figures in value["gpus"] if "error" not in figures]
    for figures in measured:
        expected = own if isinstance(own, dict) else gpu_models.EXPECTED.get(str(figures.get("name")), {})
        for name in FIGURES:
            seen, wanted = figures.get(name), expected.get(name)
            source = "expected"
            if wanted is None and len(measured) >= 3:
                peers = sorted(other[name] for other in measured if isinstance(other.get(name), (int, float)))
                wanted, source = (peers[len(peers) // 2] if peers else None), "its peers have"
            if isinstance(seen, (int, float)) and isinstance(wanted, (int, float)) and seen < share * wanted:
                detail = f"{name} {seen:g}, {source} {wanted:g}"
                found.append(
                    fail(Action.DRAIN, detail, subject=str(figures.get("bus_id")), value=seen, threshold=share * wanted)
                )
    return found


CHECK = Check(
    id="deep.gpu.speed",
    about="a GPU is slower than its model, or than its neighbours",
    sources=(gpu_load.SOURCE,),
    judge=judge,
)
