"""What a rule is, and what it finds."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from trainmaster.slurm.versions import Release
from trainmaster.slurm_plugins.doctor.facts import Facts


class Severity(StrEnum):
    """How bad it is."""

    FAULT = "fault"
    """Sooner or later jobs are lost or held, or nodes are taken out that are well."""
    ADVICE = "advice"
    """It works, and could work better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One place where a rule applies."""

    seen: str
    mend: str
    """The line to write, or the command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One trap."""

    id: str
    """A short name that stays."""
    severity: Severity
    setting: str
    """Where it is mended: a setting, a file or a command."""
    why: str
    source: str
    check: Callable[[Facts], Iterable[Hit]]
    since: Release = (0, 0)
    """The first release that has it."""
    real_nodes: bool = False
    """Not asked where several nodes are one machine: what it asks for cannot be had there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a rule found."""

    rule: str
    severity: Severity
    setting: str
    seen: str
    why: str
    source: str
    mend: str
