"""Each adapter sits where the profile says, next to its GPU. NCCL pairs them by the bus, and the fabric's rails follow.

After a repair with cards exchanged, or a firmware that numbers slots anew, `mlx5_3` may be another card: the job runs,
across the sockets, and is slow on all its nodes. Which leaf a cable leads to is ib.leaf's.
"""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail, skip
from trainmaster.health.record import Any
from trainmaster.health.sources import rails


def judge(context: Context, value: Any) -> list[Finding]:
    """Compare with `{"rails": {"mlx5_0": {"pci": "0000:18:00.0", "numa": 0, "gpu": "0000:1b:00.0"}}}`."""
    expected = context.profile.table("rails")
    if not expected:
        return [skip("the profile names no rails")]
    found = []
    for name, wanted in sorted(expected.items()):
        here = value["adapters"].get(name)
        if here is None or not isinstance(wanted, dict):
            continue  # ib.present tells
        gpu = wanted.get("gpu")
        near = rails.nearest(here, value["gpus"])
        if wanted.get("pci", here["pci"]) != here["pci"]:
            found.append(_swapped(f"sits at {here['pci']}, expected {wanted['pci']}", name))
        elif wanted.get("numa", here["numa"]) != here["numa"]:
            found.append(_swapped(f"on NUMA node {here['numa']}, expected {wanted['numa']}", name))
        elif gpu in value["gpus"] and near and gpu not in near:
            found.append(_swapped(f"is next to GPU {', '.join(near)}, expected {gpu}", name))
    return found


def _swapped(detail: str, name: str) -> Finding:
    return fail(Action.DRAIN, detail, subject=name)


CHECK = Check(
    id="ib.rail",
    about="an adapter sits in another place, or next to another GPU, than the profile says",
    sources=(rails.SOURCE,),
    judge=judge,
)
