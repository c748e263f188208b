"""Speed, width and link layer of each port, as the profile has them; without it, the ports of a node alike."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.checks.ib_state import expected_ports
from trainmaster.health.finding import Action, Finding, fail, warn
from trainmaster.health.record import Any
from trainmaster.health.sources import infiniband


def judge(context: Context, value: Any) -> list[Finding]:
    """`400 Gb/sec (4X NDR)`: a lost lane changes the width, a bad cable the speed."""
    named = context.profile.table("ib")
    found = []
    up = [(name, port) for name, port in expected_ports(context, value) if "ACTIVE" in str(port["state"])]
    for name, port in up:
        wanted = named.get(name) or named.get(name.partition("/")[0])
        for key, words in (("rate", "rate"), ("link_layer", "link layer")):
            expected = wanted.get(key) if isinstance(wanted, dict) else None
            if expected is not None and port[key] != expected:
                detail = f"{words} {port[key]}, expected {expected}"
                found.append(fail(Action.DRAIN, detail, subject=name, value=port[key], threshold=expected))
    rates = {str(port["rate"]) for _, port in up if port["link_layer"] == "InfiniBand"}
    if not named and len(rates) > 1:
        # Storage ports may well be slower than those between GPUs; only the site knows.
        found.append(warn(f"ports of different rates: {', '.join(sorted(rates))}", value=sorted(rates)))
    return found


CHECK = Check(
    id="ib.rate",
    about="an InfiniBand port is slower or narrower than it should be, or of another link layer",
    sources=(infiniband.SOURCE,),
    judge=judge,
)
