"""The same VBIOS on all GPUs of a node, or the one that the site names."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail
from trainmaster.health.gpu_values import address, shown
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_query


def judge(context: Context, value: Any) -> list[Finding]:
    """Mixed or unexpected versions."""
    versions = {address(row): shown(row, "vbios_version") for row in value["gpus"]}
    known = sorted({version for version in versions.values() if version is not None})
    expected = context.profile.table("gpu").get("vbios")
    if expected is not None:
        return [
            fail(
                Action.DRAIN, f"VBIOS {version}, expected {expected}", subject=where, value=version, threshold=expected
            )
            for where, version in versions.items()
            if version is not None and version != expected
        ]
    if len(known) > 1:
        return [fail(Action.DRAIN, f"different VBIOS: {', '.join(known)}", value=versions)]
    return []


CHECK = Check(
    id="gpu.vbios",
    about="GPUs of one node with different VBIOS versions, or with another than the site's",
    sources=(gpu_query.SOURCE,),
    judge=judge,
)
