"""A pass in words for people, as JSON lines, and as the text that node_exporter reads. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from trainmaster.health.check import Check
from trainmaster.health.check_pass import Pass
from trainmaster.health.finding import Action, Finding, Verdict

_ORDER = (Verdict.FAIL, Verdict.HUNG, Verdict.UNKNOWN, Verdict.WARN, Verdict.OK, Verdict.SKIP)


def as_text(result: Pass, *, verbose: bool = False) -> str:
    """What is wrong, worst first, and one line about the rest; every check when `verbose`."""
    findings = sorted(result.decision.findings, key=lambda finding: _ORDER.index(finding.verdict))
    shown = [finding for finding in findings if verbose or finding.bad]
    lines = [_line(finding) for finding in shown]
    counts = {verdict: sum(finding.verdict is verdict for finding in findings) for verdict in _ORDER}
    summary = ", ".join(f"{count} {verdict.value}" for verdict, count in counts.items() if count)
    lines.append(f"{summary}; {result.took_s * 1000:.0f} ms")
    if result.decision.action is not Action.NONE:
        lines.append(f"{result.decision.action.value}: {result.decision.reason}")
    return "\n".join(lines)


def _line(finding: Finding) -> str:
    words = " ".join(part for part in (finding.subject, finding.detail) if part)
    action = "" if finding.action is Action.NONE else f"  [{finding.action.value}]"
    return f"{finding.verdict.value:<8}{finding.check:<24}{words}{action}".rstrip()


def as_json_lines(result: Pass, *, node: str, epoch_s: float) -> str:
    """One object a finding, then one about the pass (`"pass": true`)."""
    common = {"ts": round(epoch_s, 3), "node": node, "boot_id": result.state.boot_id}
    lines = [
        {
            "id": finding.check,
            "verdict": finding.verdict.value,
            "action": finding.action.value,
            "subject": finding.subject,
            "detail": finding.detail,
            "value": finding.value,
            "threshold": finding.threshold,
            **common,
        }
        for finding in result.decision.findings
    ]
    decision = result.decision
    last = {
        "pass": True,
        "action": decision.action.value,
        "requeue": decision.requeue,
        "reason": decision.reason,
        "exit_code": decision.exit_code,
        "ms": round(result.took_s * 1000, 1),
        "sources_ms": {name: round(reading.ms, 1) for name, reading in result.readings.items()},
        **common,
    }
    return "\n".join(json.dumps(line) for line in [*lines, last])


def as_prometheus(result: Pass, *, epoch_s: float) -> str:
    """For node_exporter's textfile collector: the worst verdict of each check, as 0 ok to 4 fail, -1 not applicable."""
    ranks = {Verdict.SKIP: -1, Verdict.OK: 0, Verdict.WARN: 1, Verdict.UNKNOWN: 2, Verdict.HUNG: 3, Verdict.FAIL: 4}
    worst: dict[str, int] = {}
    for finding in result.decision.findings:
        worst[finding.check] = max(worst.get(finding.check, -1), ranks[finding.verdict])
    lines = [
        "# HELP trainmaster_health_verdict Worst verdict of a check: -1 skip, 0 ok, 1 warn, 2 unknown, 3 hung, 4 fail.",
        "# TYPE trainmaster_health_verdict gauge",
        *(f'trainmaster_health_verdict{{check="{check}"}} {rank}' for check, rank in sorted(worst.items())),
        "# HELP trainmaster_health_pass_seconds How long the last pass took.",
        "# TYPE trainmaster_health_pass_seconds gauge",
        f"trainmaster_health_pass_seconds {result.took_s:.4f}",
        "# HELP trainmaster_health_pass_timestamp_seconds When it ended.",
        "# TYPE trainmaster_health_pass_timestamp_seconds gauge",
        f"trainmaster_health_pass_timestamp_seconds {epoch_s:.3f}",
    ]
    return "\n".join(lines) + "\n"


def as_table(checks: Sequence[tuple[str, str, str]]) -> str:
    """`trainmaster health list`: id, where the facts come from, what it finds."""
    widths = [max(len(row[column]) for row in checks) for column in (0,)]
    return "\n".join(f"{check:<{widths[0]}}  {about}" for check, _, about in checks)


def as_markdown(checks: Sequence[Check]) -> str:
    """`trainmaster health list --markdown`, which is docs/checks.md."""
    head = (
        "# The health checks\n\n"
        "Written by `trainmaster health list --markdown` from the checks themselves; a test holds it against them.\n"
        "How far each may go, and its thresholds, are the profile's: [health.md](health.md).\n\n"
        "| check | finds | looks at | set | passes |\n|---|---|---|---|---|\n"
    )
    rows = []
    for check in sorted(checks, key=lambda check: check.id):
        about = ", ".join(source.about for source in check.sources).replace("|", "\\|")
        sets = {source.set for source in check.sources}
        largest = "deep" if "deep" in sets else "full" if "full" in sets else "fast"
        rows.append(f"| {check.id} | {check.about} | {about} | {largest} | {check.strikes} |\n")
    return head + "".join(rows)
