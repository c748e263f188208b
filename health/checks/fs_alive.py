"""Every mount answers within five seconds. A network file system may be slow once; it has to fail twice."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, Verdict
from trainmaster.health.record import Any
from trainmaster.health.sources import space


def judge(context: Context, value: Any) -> list[Finding]:
    """Hung, or an error such as "Stale file handle"."""
    found = []
    for path, facts in sorted(value.items()):
        if facts.get("hung"):
            where = f", in {facts['in']}" if facts.get("in") else ""
            found.append(Finding("", Verdict.HUNG, Action.DRAIN, path, f"does not answer{where}"))
        elif "error" in facts:
            found.append(Finding("", Verdict.FAIL, Action.DRAIN, path, str(facts["error"])))
    return found


CHECK = Check(
    id="fs.alive", about="a mount does not answer, in two passes", sources=(space.SOURCE,), judge=judge, strikes=2
)
