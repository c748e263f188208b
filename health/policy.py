"""From findings to what is done about the node. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainmaster.health.check import Check
from trainmaster.health.finding import DRAINS, Action, Finding, Verdict
from trainmaster.health.profile import Profile
from trainmaster.health.record import NamedTuple

MARK = "[HC] "
"""What every reason of ours begins with; the form that others' drain monitors read, too."""
REASON_MAX = 240
"""Bytes of a reason. `sinfo -R` shows twenty of them, so the check's id stands first."""

_RANK = {
    Action.NONE: 0,
    Action.COMMENT: 1,
    Action.DRAIN_RESET: 2,
    Action.DRAIN: 3,
    Action.DRAIN_REQUEUE: 4,
}
"""A plain drain is stronger than one that a reset may end: what needs hands must not be brought back by a machine."""

EXIT_OK, EXIT_WARN, EXIT_FAIL, EXIT_UNKNOWN = 0, 1, 2, 3


class Decision(NamedTuple):
    """What follows from one pass."""

    action: Action
    requeue: bool
    """The job that runs here cannot go on; whether it is requeued is the site's choice."""
    reason: str
    """For Slurm, with our mark; empty when there is nothing to say."""
    exit_code: int
    findings: tuple[Finding, ...]
    """As the site lets them act: strikes counted, modes applied."""
    strikes: Mapping[str, list[float]]
    """For the next pass."""


def decide(
    findings: Sequence[Finding],
    *,
    checks: Mapping[str, Check],
    strikes: Mapping[str, list[float]],
    profile: Profile,
    now_s: float,
) -> Decision:
    """Weigh the findings of a pass.

    Args:
        findings: of every check that was run.
        checks: by id, for their strikes.
        strikes: of earlier passes of this boot.
        profile: the site's modes.
        now_s: epoch seconds.
    """
    findings = [as_the_site_wants(finding, profile) for finding in findings]
    counted = _count(findings, checks, strikes, now_s)
    weighed = tuple(_weigh(finding, checks, counted, profile) for finding in findings)
    acting = [finding for finding in weighed if finding.action in DRAINS]
    strongest = max((finding.action for finding in weighed), key=lambda action: _RANK[action], default=Action.NONE)
    told = acting or [finding for finding in weighed if finding.action is Action.COMMENT]
    return Decision(
        action=strongest,
        requeue=any(finding.action is Action.DRAIN_REQUEUE for finding in acting),
        reason=reason(told),
        exit_code=exit_code(weighed),
        findings=weighed,
        strikes=counted,
    )


def as_the_site_wants(finding: Finding, profile: Profile) -> Finding:
    """The finding with the action that the profile names for its kind, if it names one. Pure."""
    if not finding.bad:
        return finding
    kind = {Verdict.WARN: "warn", Verdict.UNKNOWN: "unknown"}.get(finding.verdict, "")
    # "unknown" of a check whose source is in trouble asks for nothing: the trouble has a finding of its own.
    chosen = profile.action(finding.check, kind) if kind != "unknown" or finding.action is not Action.NONE else None
    return finding if chosen is None else finding._replace(action=chosen)


def _count(
    findings: Sequence[Finding], checks: Mapping[str, Check], strikes: Mapping[str, list[float]], now_s: float
) -> dict[str, list[float]]:
    """The strikes with those of this pass."""
    striking = [finding for finding in findings if finding.bad and finding.action in DRAINS]
    bad = {finding.key for finding in striking if _strikes_of(finding.check, checks) > 1}
    # What could not be looked at this time neither counts nor clears.
    unseen = {finding.check for finding in findings if finding.verdict is Verdict.UNKNOWN}
    counted: dict[str, list[float]] = {}
    for key in bad | set(strikes):
        check = checks.get(key.partition("|")[0])
        if check is None:
            # A pass of fewer checks, by hand or between two full ones, says nothing about the others.
            counted[key] = list(strikes[key])
            continue
        times = list(strikes.get(key, ()))
        window_s = check.window_s
        if window_s:
            # A clock that was set back must not keep a strike for ever.
            times = [moment for moment in times if 0 <= now_s - moment <= window_s]
        elif key not in bad and key.partition("|")[0] not in unseen:
            times = []
        if key in bad:
            times.append(now_s)
        if times:
            counted[key] = times[-max(check.strikes, 1) :]
    return counted


def _strikes_of(check_id: str, checks: Mapping[str, Check]) -> int:
    check = checks.get(check_id)
    return check.strikes if check is not None else 1


def _weigh(
    finding: Finding, checks: Mapping[str, Check], counted: Mapping[str, list[float]], profile: Profile
) -> Finding:
    needed = _strikes_of(finding.check, checks)
    if finding.bad and needed > 1 and finding.action in DRAINS:
        count = len(counted.get(finding.key, ()))
        if count < needed:
            detail = f"{finding.detail} ({count} of {needed})"
            finding = finding._replace(verdict=Verdict.WARN, action=Action.COMMENT, detail=detail)
    mode = profile.mode(finding.check)
    if mode == "observe" or (mode == "comment" and finding.action in DRAINS):
        finding = finding._replace(action=Action.NONE if mode == "observe" else Action.COMMENT)
    return finding


def reason(findings: Sequence[Finding]) -> str:
    """One line for Slurm: `[HC] gpu.xid: 79 on 0000:0f:00.0; ib.state: mlx5_3/1 DOWN`.

    >>> reason([])
    ''
    """
    parts: list[str] = []
    for finding in sorted(findings, key=lambda finding: -_RANK[finding.action]):
        text = f"{finding.check}: {_plain(finding.detail)}"
        if finding.subject and finding.subject not in finding.detail:
            text += f" on {_plain(finding.subject)}"
        if text not in parts:
            parts.append(text)
    shown: list[str] = []
    for number, text in enumerate(parts):
        more = f"; and {len(parts) - number} more"
        if shown and len(MARK) + len("; ".join([*shown, text])) + len(more) > REASON_MAX:
            return MARK + "; ".join(shown) + more
        shown.append(text[: REASON_MAX - len(MARK) - len(more)])
    return MARK + "; ".join(shown) if shown else ""


def _plain(text: str) -> str:
    """What can stand in a reason: one line of ASCII without the characters that delimit."""
    text = text.replace(";", ",").replace('"', "'")
    return " ".join("".join(c if " " <= c <= "~" else " " for c in text).split())


def exit_code(findings: Sequence[Finding]) -> int:
    """0 ok, 1 warn, 2 fail, 3 unknown: the worst of all, where a failure is worse than not knowing."""
    verdicts = {finding.verdict for finding in findings}
    if verdicts & {Verdict.FAIL, Verdict.HUNG}:
        return EXIT_FAIL
    if Verdict.UNKNOWN in verdicts:
        return EXIT_UNKNOWN
    return EXIT_WARN if Verdict.WARN in verdicts else EXIT_OK
