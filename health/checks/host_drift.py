"""The node has what the fleet has: kernel, distribution or image, drivers, VBIOS, adapters' firmware.

`trainmaster health genconf --fleet` finds what most nodes have; a node that was left out of an upgrade differs.
"""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Finding, skip, warn
from trainmaster.health.record import Any
from trainmaster.health.sources import image


def judge(context: Context, value: Any) -> list[Finding]:
    """Compare with the profile's `host`."""
    expected = context.profile.table("host")
    if not expected:
        return [skip("the profile does not say what a node has installed")]
    return [
        warn(f"{value.get(name, 'nothing')}, expected {wanted}", subject=name, value=value.get(name), threshold=wanted)
        for name, wanted in sorted(expected.items())
        if value.get(name) != wanted
    ]


CHECK = Check(
    id="host.drift",
    about="another kernel, image, driver or firmware than the fleet's",
    sources=(image.SOURCE,),
    judge=judge,
)
