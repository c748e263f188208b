"""All GPUs of a node reduce together, rightly, and as fast as on other nodes."""

from __future__ import annotations

from trainmaster.health.check import Check, Compare, Context
from trainmaster.health.figures import below
from trainmaster.health.finding import Action, Finding, fail, unknown
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_collective

ID = "deep.gpu.collective"


def figures(value: Any) -> dict[str, float]:
    """The bus bandwidth."""
    rate = value.get("bus_gbps")
    return {"nccl_bus_gbps": float(rate)} if isinstance(rate, (int, float)) and rate > 0 else {}


COMPARE = Compare(figures=figures, share=0.8)


def judge(context: Context, value: Any) -> list[Finding]:
    """Wrong sums, and the site's figure. An error may be torch's, so it is only told."""
    if "error" in value:
        return [unknown(Action.COMMENT, f"all-reduce over {value.get('ranks')} GPUs: {value['error']}")]
    found = below(context, ID, COMPARE, value)
    if value.get("wrong"):
        detail = f"{value['wrong']} values of an all-reduce over {value['ranks']} GPUs are not the sum"
        found.append(fail(Action.DRAIN, detail, value=value["wrong"], threshold=0))
    return found


CHECK = Check(
    id=ID,
    about="an NCCL all-reduce over all GPUs of a node gives wrong sums, or is slow",
    sources=(gpu_collective.SOURCE,),
    judge=judge,
    compare=COMPARE,
)
