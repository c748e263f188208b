"""The links between a node's memory and its GPUs are as fast as on other nodes."""

from __future__ import annotations

from trainmaster.health.check import Check, Compare, Context
from trainmaster.health.figures import below, numbers
from trainmaster.health.finding import Finding
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_load

ID = "deep.gpu.pcie"


def figures(value: Any) -> dict[str, float]:
    """Both ways, of each GPU by its number."""
    found = {}
    for gpu in value["gpus"]:
        for name, rate in numbers(gpu, "pcie_to_gpu_gbps", "pcie_to_host_gbps").items():
            found[f"{name} GPU{gpu.get('index')}"] = rate
    return found


COMPARE = Compare(figures=figures, share=0.7)


def judge(context: Context, value: Any) -> list[Finding]:
    """Against the site's figures."""
    return below(context, ID, COMPARE, value)


CHECK = Check(
    id=ID,
    about="copies between a GPU and the host are slower than the site's figure, or than on other nodes",
    sources=(gpu_load.SOURCE,),
    judge=judge,
    compare=COMPARE,
)
