"""The same firmware on all adapters of one kind, or the one that the profile names."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Finding, warn
from trainmaster.health.record import Any
from trainmaster.health.sources import infiniband


def judge(context: Context, value: Any) -> list[Finding]:
    """Versions that differ."""
    named = context.profile.table("ib")
    found = []
    versions = set()
    for device, facts in sorted(value.items()):
        wanted = named.get(device)
        expected = wanted.get("fw_ver") if isinstance(wanted, dict) else None
        if expected is not None and facts["fw_ver"] != expected:
            detail = f"firmware {facts['fw_ver']}, expected {expected}"
            found.append(warn(detail, subject=device, value=facts["fw_ver"], threshold=expected))
        # The number before the first dot tells ConnectX generations apart: 28 is ConnectX-7.
        versions.add(str(facts["fw_ver"]))
    kinds = {version.partition(".")[0] for version in versions}
    if len(versions) > len(kinds):
        found.append(warn(f"different firmware: {', '.join(sorted(versions))}", value=sorted(versions)))
    return found


CHECK = Check(
    id="ib.fw", about="adapters of one kind with different firmware", sources=(infiniband.SOURCE,), judge=judge
)
