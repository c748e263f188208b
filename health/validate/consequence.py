"""What a validation does about drains. Pure.

- A node that fails a deep check is drained with our reason; one that is drained already stays as it is, and what others
  wrote is not touched.
- A node that was drained for deep checks alone is resumed when each of them was looked at again and passes, and nothing
  else speaks against it.
- More nodes than a storm: nothing is drained, since the check is more likely wrong than the fleet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainmaster.health.finding import DRAINS, Finding, Verdict
from trainmaster.health.ledger import VALIDATED
from trainmaster.health.policy import MARK, reason
from trainmaster.slurm.values import Node

DEEP = VALIDATED.removeprefix(MARK)
DRAINS_MIN, DRAINS_SHARE = 3, 0.05
"""So many nodes, or such a part of all that were looked at, may be drained by one validation."""
_WORST = (Verdict.FAIL, Verdict.HUNG, Verdict.UNKNOWN, Verdict.WARN, Verdict.OK, Verdict.SKIP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is to be done about one node."""

    node: str
    kind: str
    """drain, resume or nothing."""
    reason: str = ""
    """To be written, or that has to stand there still."""
    said: str = ""
    """For people."""


def verdict_of(findings: Sequence[Finding]) -> Verdict:
    """The worst of a node's findings; one that nobody looked at is unknown."""
    verdicts = {finding.verdict for finding in findings}
    worst = next((verdict for verdict in _WORST if verdict in verdicts), Verdict.UNKNOWN)
    return Verdict.UNKNOWN if worst is Verdict.SKIP else worst


def consequence(node: Node, findings: Sequence[Finding]) -> Step:
    """What follows for a node as slurmctld sees it now."""
    causes = [one for one in findings if one.action in DRAINS and one.check.startswith(DEEP)]
    drained = "DRAIN" in node.state
    ours = node.reason.startswith(MARK)
    if drained and not ours:
        return Step(node=node.name, kind="nothing", said=f"drained by somebody else: {node.reason}")
    if causes:
        wanted = reason(causes)
        if drained and not node.reason.startswith(VALIDATED):
            return Step(node=node.name, kind="nothing", said="drained already, by its own checks")
        if drained and _ids(node.reason) == _ids(wanted):
            # For the same causes; the figures in it are those of the day on which it was drained.
            return Step(node=node.name, kind="nothing", said="stays drained")
        return Step(node=node.name, kind="drain", reason=wanted, said="stays drained" if drained else "drained")
    if drained:
        why = _why_stays(node.reason, findings)
        if why:
            return Step(node=node.name, kind="nothing", said=f"stays drained: {why}")
        return Step(node=node.name, kind="resume", reason=node.reason, said="resumed")
    return Step(node=node.name, kind="nothing")


def _why_stays(text: str, findings: Sequence[Finding]) -> str:
    """Why a drain of ours is not to be lifted for good; nothing when it is."""
    if not text.startswith(VALIDATED):
        return "its own checks drained it, and resume it"
    ids = _ids(text)
    more = any(part.startswith("and ") for part in ids)
    ids = {part for part in ids if not part.startswith("and ")}
    if other := sorted(one for one in ids if not one.startswith(DEEP)):
        return f"also for {', '.join(other)}"
    bad = [one for one in findings if one.verdict in (Verdict.FAIL, Verdict.HUNG, Verdict.UNKNOWN)]
    if bad:
        return f"{bad[0].check} is {bad[0].verdict.value}"
    passed = {one.check for one in findings if one.verdict in (Verdict.OK, Verdict.WARN)}
    if missing := sorted(ids - passed):
        return f"{', '.join(missing)} was not looked at"
    # A reason that was too long names some of its causes only by their number.
    return "not all of its causes are known" if more and not _all_passed(findings) else ""


def _ids(text: str) -> set[str]:
    """The checks that a reason of ours names, and "and 2 more" where it does not name all."""
    return {part.partition(":")[0].strip() for part in text.removeprefix(MARK).split("; ")}


def _all_passed(findings: Sequence[Finding]) -> bool:
    return all(one.verdict in (Verdict.OK, Verdict.SKIP) for one in findings)


def bounded(steps: Sequence[Step], *, looked_at: int, most: int | None) -> tuple[tuple[Step, ...], str]:
    """The steps, without drains if there are too many of them; and what is to be said about that.

    Args:
        steps: of all nodes.
        looked_at: how many nodes there were.
        most: the caller's bound; None for ours.
    """
    limit = most if most is not None else max(DRAINS_MIN, int(DRAINS_SHARE * looked_at))
    fresh = [step for step in steps if step.kind == "drain" and step.said == "drained"]
    if len(fresh) <= limit:
        return tuple(steps), ""
    kept = tuple(
        Step(node=step.node, kind="nothing", said="not drained: too many at once") if step in fresh else step
        for step in steps
    )
    words = f"{len(fresh)} nodes would be drained at once, more than {limit}: the check may be wrong, so none is"
    return kept, f"{words} (--drains-max {len(fresh)} insists)"


def exit_code(verdicts: Mapping[str, Verdict]) -> int:
    """2 when a node failed, 3 when one is not known, 1 for a warning, 0 when all passed."""
    found = set(verdicts.values())
    if found & {Verdict.FAIL, Verdict.HUNG}:
        return 2
    if Verdict.UNKNOWN in found or not found:
        return 3
    return 1 if Verdict.WARN in found else 0
