"""Findings and rules as text. Pure."""

import sys
from collections.abc import Sequence

from trainmaster.slurm import versions
from trainmaster.slurm_plugins.doctor.rule import Finding, Rule, Severity


def told(found: Sequence[Finding], *, asked: int) -> str:
    """For a person."""
    lines = []
    for one in found:
        lines += [f"{one.severity:<7} {one.seen}  [{one.rule}]", f"        {one.why}"]
        lines += [f"        write: {one.mend}", f"        source: {one.source}"]
    faults = sum(one.severity is Severity.FAULT for one in found)
    lines.append(f"{asked} rules: {_count(faults, 'fault')}, {len(found) - faults} of advice")
    return "\n".join(lines)


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def listed(rules: Sequence[Rule]) -> list[dict[str, str | bool]]:
    """For a program."""
    return [
        {
            "rule": rule.id, "severity": rule.severity, "setting": rule.setting, "why": rule.why,
            "source": rule.source, "since": versions.name(rule.since) if rule.since != (0, 0) else "",
            "real_nodes": rule.real_nodes,
        }
        for rule in rules
    ]  # fmt: skip


def table(rules: Sequence[Rule]) -> str:
    """One line a rule."""
    return "\n".join(f"{rule.id:<26} {rule.severity:<7} {rule.setting}: {rule.why}" for rule in rules)


def markdown(rules: Sequence[Rule]) -> str:
    """The table of docs/doctor.md."""
    lines = ["| rule | | where | why | source |", "|---|---|---|---|---|"]
    for rule in rules:
        since = f" (from {versions.name(rule.since)} on)" if rule.since != (0, 0) else ""
        real = " (real nodes)" if rule.real_nodes else ""
        lines.append(f"| `{rule.id}` | {rule.severity} | {rule.setting}{since}{real} | {rule.why} | {rule.source} |")
    return "\n".join(lines)


if __name__ == "__main__":
    from trainmaster.slurm_plugins.doctor.examine import RULES

    sys.stdout.write(markdown(RULES) + "\n")
