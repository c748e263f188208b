"""What a check found: the values that travel from checks to policy, reports and the ledger."""

from __future__ import annotations

from enum import Enum

from trainmaster.health.record import Any, NamedTuple


class Verdict(str, Enum):  # noqa: UP042 - StrEnum is new in 3.11
    """What is known about one thing."""

    OK = "ok"
    SKIP = "skip"
    """Not applicable on this node."""
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"
    """It could not be looked at. Never a pass."""
    HUNG = "hung"
    """Looking at it did not come back. Never a pass."""


class Action(str, Enum):  # noqa: UP042
    """What a finding asks for; the site may allow less (`policy`)."""

    NONE = "none"
    """To be counted only."""
    COMMENT = "comment"
    DRAIN = "drain"
    """Slurm's DRAIN: no new job comes here, a running one is left alone."""
    DRAIN_RESET = "drain-reset"
    """As drain; once the node is DRAINED a reset or reboot may bring it back."""
    DRAIN_REQUEUE = "drain-requeue"
    """As drain; the job that runs here cannot go on."""


DRAINS = frozenset((Action.DRAIN, Action.DRAIN_RESET, Action.DRAIN_REQUEUE))


class Finding(NamedTuple):
    """One thing that was looked at, and what came of it."""

    check: str
    """The check's id, such as gpu.ecc.uncorr."""
    verdict: Verdict
    action: Action = Action.NONE
    subject: str = ""
    """Which one: 0000:0f:00.0, mlx5_3/1, /scratch; empty for the node."""
    detail: str = ""
    """In a few words, for the drain's reason."""
    value: Any = None
    """What was seen, and `threshold`, what it was held against; JSON values."""
    threshold: Any = None

    @property
    def key(self) -> str:
        """The same trouble has the same key in every pass."""
        return f"{self.check}|{self.subject}"

    @property
    def bad(self) -> bool:
        """Anything but ok and skip."""
        return self.verdict not in (Verdict.OK, Verdict.SKIP)


def fail(action: Action, detail: str, *, subject: str = "", value: Any = None, threshold: Any = None) -> Finding:
    """A finding that speaks against the node. The runner fills in the check's id."""
    return Finding("", Verdict.FAIL, action, subject, detail, value, threshold)


def warn(detail: str, *, subject: str = "", value: Any = None, threshold: Any = None) -> Finding:
    """A finding that somebody should read."""
    return Finding("", Verdict.WARN, Action.COMMENT, subject, detail, value, threshold)


def note(detail: str, *, subject: str = "", value: Any = None) -> Finding:
    """Something that happened and asks for nothing; it is counted."""
    return Finding("", Verdict.OK, Action.NONE, subject, detail, value)


def unknown(action: Action, detail: str, *, subject: str = "", value: Any = None) -> Finding:
    """A finding about something that could not be looked at."""
    return Finding("", Verdict.UNKNOWN, action, subject, detail, value)


def skip(detail: str) -> Finding:
    """The check does not apply here."""
    return Finding("", Verdict.SKIP, Action.NONE, "", detail)
