"""What came of a validation, for people and for programs. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trainmaster.health.finding import Finding, Verdict
from trainmaster.health.validate.consequence import Step, verdict_of


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of it."""

    findings: dict[str, tuple[Finding, ...]] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    """By node, why it was not looked at."""
    steps: dict[str, Step] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    figures: dict[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    meetings: dict[str, dict[str, object]] = field(default_factory=dict)
    reservation: str = ""
    took_s: float = 0.0

    def verdicts(self) -> dict[str, Verdict]:
        """Of every node that was named."""
        known = {node: verdict_of(findings) for node, findings in self.findings.items()}
        return known | dict.fromkeys(self.left, Verdict.UNKNOWN)


def as_json(outcome: Outcome, code: int) -> str:
    """One object with all of it."""
    nodes: dict[str, object] = {}
    for node, verdict in sorted(outcome.verdicts().items()):
        findings = [
            {
                "id": one.check,
                "verdict": one.verdict.value,
                "action": one.action.value,
                "subject": one.subject,
                "detail": one.detail,
                "value": one.value,
                "threshold": one.threshold,
            }
            for one in outcome.findings.get(node, ())
        ]
        step = outcome.steps.get(node)
        nodes[node] = {
            "verdict": verdict.value,
            "not_looked_at": outcome.left.get(node, ""),
            "done": step.kind if step else "nothing",
            "said": step.said if step else "",
            "reason": step.reason if step else "",
            "findings": findings,
            "figures": outcome.figures.get(node, {}),
        }
    told = {
        "nodes": nodes,
        "meetings": outcome.meetings,
        "notes": outcome.notes,
        "reservation": outcome.reservation,
        "took_s": round(outcome.took_s, 1),
        "exit_code": code,
    }
    return json.dumps(told)


def as_text(outcome: Outcome, hidden: Sequence[Verdict] = (Verdict.OK, Verdict.SKIP)) -> str:
    """A line a node, and more where something is wrong; then what speaks against nobody."""
    rows = []
    width = max((len(node) for node in outcome.verdicts()), default=0)
    for node, verdict in sorted(outcome.verdicts().items()):
        step = outcome.steps.get(node)
        bad = [one for one in outcome.findings.get(node, ()) if one.verdict not in hidden]
        words = [f"{one.check}: {_line(one)}" for one in bad] or [outcome.left.get(node, "")]
        words[0] += f"  [{step.said}]" if step is not None and step.said else ""
        rows.append(f"{node:<{width}}  {verdict.value:<8}{words[0]}".rstrip())
        rows += [f"{'':<{width}}  {'':<8}{more}" for more in words[1:]]
    counts = {verdict: list(outcome.verdicts().values()).count(verdict) for verdict in Verdict}
    summary = ", ".join(f"{count} {verdict.value}" for verdict, count in counts.items() if count)
    rows += outcome.notes
    rows.append(f"{summary or 'no node'}; {outcome.took_s:.0f} s")
    return "\n".join(rows)


def _line(one: Finding) -> str:
    on = f" on {one.subject}" if one.subject and one.subject not in one.detail else ""
    return f"{one.detail}{on}"
