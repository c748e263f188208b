"""The GPUs of a node reach each other, and as fast as on other nodes."""

from __future__ import annotations

from trainmaster.health.check import Check, Compare, Context
from trainmaster.health.figures import below
from trainmaster.health.finding import Action, Finding, fail, unknown
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_peers

ID = "deep.gpu.peers"


def figures(value: Any) -> dict[str, float]:
    """Of each pair: pairs of one node may differ by design, the same pair of two nodes may not."""
    return {f"peer_gbps {pair}": float(rate) for pair, rate in value["peers"].items() if rate > 0}


COMPARE = Compare(figures=figures, share=0.7)


def judge(context: Context, value: Any) -> list[Finding]:
    """What the driver refused, against the profile, and rates against the site's figures."""
    if "error" in value:
        return [unknown(Action.COMMENT, f"copies between GPUs: {value['error']}")]
    found = below(context, ID, COMPARE, value)
    if value["refused"] and context.profile.table("deep").get("peers") is True:
        pairs = ", ".join(value["refused"][:8])
        found.append(fail(Action.DRAIN, f"GPUs do not reach each other: {pairs}", value=len(value["refused"])))
    return found


CHECK = Check(
    id=ID,
    about="copies between two GPUs of a node are slow, or refused where the profile says deep.peers",
    sources=(gpu_peers.SOURCE,),
    judge=judge,
    compare=COMPARE,
)
