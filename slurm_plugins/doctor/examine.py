"""All rules, and what they find. Pure."""

from collections.abc import Collection

from trainmaster.slurm_plugins.doctor.facts import Facts
from trainmaster.slurm_plugins.doctor.rule import Finding, Rule, Severity
from trainmaster.slurm_plugins.doctor.rules import (
    accounting,
    devices,
    hook_files,
    hooks,
    nodes,
    processes,
    requeue,
    scale,
    scheduling,
    topology,
    trust,
)

RULES: tuple[Rule, ...] = (
    *hooks.RULES,
    *hook_files.RULES,
    *requeue.RULES,
    *nodes.RULES,
    *processes.RULES,
    *devices.RULES,
    *topology.RULES,
    *scheduling.RULES,
    *scale.RULES,
    *accounting.RULES,
    *trust.RULES,
)


def asked(facts: Facts, *, skip: Collection[str] = ()) -> tuple[Rule, ...]:
    """The rules that apply to this release and this kind of cluster."""
    shared = facts.shares_a_machine
    return tuple(
        rule
        for rule in RULES
        if rule.id not in skip and facts.version >= rule.since and not (rule.real_nodes and shared)
    )


def examine(facts: Facts, *, skip: Collection[str] = ()) -> tuple[Finding, ...]:
    """All findings, faults first."""
    found = [
        Finding(
            rule=rule.id, severity=rule.severity, setting=rule.setting, seen=hit.seen,
            why=rule.why, source=rule.source, mend=hit.mend,
        )
        for rule in asked(facts, skip=skip)
        for hit in rule.check(facts)
    ]  # fmt: skip
    return tuple(sorted(found, key=lambda one: one.severity is not Severity.FAULT))
