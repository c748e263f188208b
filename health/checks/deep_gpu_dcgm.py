"""NVIDIA's own diagnostics pass."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail, warn
from trainmaster.health.record import Any
from trainmaster.health.sources import dcgm

HARMLESS = {0, 1, 5}
"""Severities of DCGM (dcgm_errors.h) that speak of no broken hardware: none, to be watched, configuration."""
RESET = 6


def judge(context: Context, value: Any) -> list[Finding]:
    """Failed tests; what DCGM calls a matter of configuration, or an old one files under deployment, is only told."""
    found = []
    for result in value["results"]:
        words = f"dcgmi {result['test']}: {result['warning'] or result['status']}"
        severity = result["severity"]
        told = severity in HARMLESS or (severity is None and result["category"] == "deployment")
        if result["status"].startswith("fail") and not told:
            action = Action.DRAIN_RESET if severity == RESET else Action.DRAIN
            found.append(fail(action, words, subject=result["subject"], value=result["severity"]))
        elif result["status"].startswith(("fail", "warn")):
            found.append(warn(words, subject=result["subject"], value=result["severity"]))
    return found


CHECK = Check(
    id="deep.gpu.dcgm",
    about="a test of `dcgmi diag` fails",
    sources=(dcgm.SOURCE,),
    judge=judge,
)
