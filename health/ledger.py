"""Which drains of this node are ours, and what follows from a pass. Pure; `health/enforce.py` carries it out.

- A healthy node costs slurmctld nothing: unless something is wrong, or a drain of ours stands, nobody is asked.
- A cause is drained for once. Whoever resumes the node by hand is not contradicted until there is another cause.
- What somebody else wrote is never overwritten, and never cleared.
- We resume what we drained when each cause was looked at again and is gone, in two passes; what needs a reset or a
  reboot, only after the node has booted.
- When many nodes are drained by us at once, the check is wrong and not the fleet: nothing is done, and that is said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from trainmaster.health.finding import DRAINS, Action, Finding, Verdict
from trainmaster.health.policy import MARK, Decision
from trainmaster.health.record import NamedTuple

GOOD_PASSES = 2
VALIDATED = f"{MARK}deep."
"""What a reason of `trainmaster health validate` begins with."""
FABRIC = f"{MARK}fabric."
"""What a reason from the fabric's own side begins with (`trainmaster health fabric`)."""
STORM_NODES = 3
STORM_WINDOW_S = 600.0


class Cause(NamedTuple):
    """Why the node was drained: one acting finding."""

    check: str
    subject: str
    action: str
    boot_id: str


class Ledger(NamedTuple):
    """What is remembered across boots."""

    causes: tuple[Cause, ...] = ()
    """What a drain stands for, or shall stand for."""
    reason: str = ""
    """As we wrote it into Slurm; empty while it is not written."""
    good_passes: int = 0
    """In how many passes in a row all causes have been gone."""
    note: str = ""
    """Why what should be done has not been, if so."""


class NodeView(NamedTuple):
    """What slurmctld says of the node."""

    drained: bool
    reason: str
    recent: int = 0
    """How many other nodes we have drained within STORM_WINDOW_S."""


class Step(NamedTuple):
    """What is to be done, and the ledger once it is."""

    kind: str
    """nothing, drain or resume."""
    reason: str
    ledger: Ledger


def decode(text: str) -> Ledger:
    """The ledger of a file; an empty one for anything else, so that a drain that we forgot is nobody's to clear."""
    try:
        raw = json.loads(text)
        causes = tuple(Cause(*(str(part) for part in cause)) for cause in raw["causes"])
        good_passes, words = raw["good_passes"], (raw["reason"], raw["note"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return Ledger()
    if not isinstance(good_passes, int) or not all(isinstance(word, str) for word in words):
        return Ledger()
    return Ledger(causes, words[0], good_passes, words[1])


def encode(ledger: Ledger) -> str:
    """The text of the file."""
    return json.dumps(ledger._asdict())


def wanted(ledger: Ledger, decision: Decision, boot_id: str, rests: Mapping[str, Sequence[str]]) -> Step:
    """What this pass asks for, before slurmctld has been looked at.

    Args:
        ledger: of the last pass.
        decision: of this pass.
        boot_id: of this boot.
        rests: by the id under which trouble with a source is told (gpu.hung), the checks that rest on that source.
    """
    acting = [finding for finding in decision.findings if finding.action in DRAINS]
    known = {(cause.check, cause.subject) for cause in ledger.causes}
    new = [finding for finding in acting if (finding.check, finding.subject) not in known]
    if new or (acting and not ledger.reason):
        added = tuple(Cause(finding.check, finding.subject, finding.action.value, boot_id) for finding in new)
        return Step("drain", decision.reason, ledger._replace(causes=ledger.causes + added, good_passes=0))
    if acting or not ledger.causes:
        return Step("nothing", "", ledger._replace(good_passes=0))
    if not all(_gone(cause, decision.findings, boot_id, rests) for cause in ledger.causes):
        return Step("nothing", "", ledger._replace(good_passes=0))
    good = ledger._replace(good_passes=ledger.good_passes + 1)
    if good.good_passes < GOOD_PASSES:
        return Step("nothing", "", good)
    if not ledger.reason:
        # It never came to a drain; there is nothing to take back.
        return Step("nothing", "", Ledger())
    return Step("resume", ledger.reason, good)


def _gone(cause: Cause, findings: Sequence[Finding], boot_id: str, rests: Mapping[str, Sequence[str]]) -> bool:
    """Whether somebody looked again, could see, and found nothing of the kind. Not to have looked is no answer."""
    if cause.action != Action.DRAIN.value and cause.boot_id == boot_id:
        return False
    seen = [finding for finding in findings if finding.check == cause.check]
    if seen:
        told = [finding for finding in seen if finding.subject in ("", cause.subject)]
        return all(finding.verdict in (Verdict.OK, Verdict.WARN) for finding in told)
    # The trouble was with a source: it is over when the checks that rest on it can judge again.
    dependent = [finding for finding in findings if finding.check in rests.get(cause.check, ())]
    return bool(dependent) and not any(finding.verdict in (Verdict.UNKNOWN, Verdict.HUNG) for finding in dependent)


def permitted(step: Step, view: NodeView) -> tuple[bool, Ledger]:
    """Whether the step may be taken as slurmctld sees the node now, and the ledger if it is or is not."""
    ours = view.reason.startswith(MARK)
    if step.kind == "resume":
        if not view.drained or view.reason != step.ledger.reason:
            # Resumed by hand, or taken over by somebody with a reason of their own: it is no longer ours.
            return False, Ledger()
        return True, Ledger()
    if view.drained and view.reason.startswith(VALIDATED) and view.reason != step.ledger.reason:
        # `health validate` resumes it once the node passes; a reason of this node's own would hide that.
        return False, step.ledger._replace(reason="", note=f"drained by a validation: {view.reason[:80]}")
    if view.drained and not ours:
        return False, step.ledger._replace(reason="", note=f"drained by somebody else: {view.reason[:80]}")
    if view.drained and view.reason.startswith(FABRIC) is not step.reason.startswith(FABRIC):
        # Two ledgers, the node's and the fabric's host's: the one that drained it resumes it, then the other may drain.
        return False, step.ledger._replace(reason="", note=f"drained for something else: {view.reason[:80]}")
    if view.drained and view.reason == step.reason:
        return False, step.ledger._replace(reason=step.reason, note="")
    if view.recent >= STORM_NODES and not view.drained:
        note = f"{view.recent} nodes were drained within {STORM_WINDOW_S / 60:.0f} minutes: the check may be wrong"
        return False, step.ledger._replace(reason="", note=note)
    return True, step.ledger._replace(reason=step.reason, note="")


def unreachable(step: Step, words: str) -> Ledger:
    """The ledger when slurmctld could not be asked: the next pass tries again."""
    if step.kind == "resume":
        return step.ledger._replace(note=words)
    return step.ledger._replace(reason="", note=words)


def view_of(show_node: str, reasons: str, *, node: str, now_s: float) -> NodeView | None:
    """From `scontrol -o show node` and lines of "node|epoch seconds|reason"; None when the node is not told of.

    Source of the form: Slurm 22.05.
    """
    words: dict[str, str] = {}
    line = show_node.strip().splitlines()[0] if show_node.strip() else ""
    for word in line.split(" "):
        key, equals, value = word.partition("=")
        if equals and key not in words:
            words[key] = value
    if words.get("NodeName") != node or "State" not in words:
        return None
    # `Reason=[HC] gpu.xid: 79 on 0000:0f:00.0 [root@2026-11-23T10:00:00]`, and perhaps a comment after it.
    found = re.search(r" Reason=(.*?) \[[^][@ ]+@\d{4}-\d\d-\d\dT[\d:]+\]", line)
    reason = found[1] if found is not None else ""
    # A node stands there once for each of its partitions.
    recent = set()
    for entry in reasons.splitlines():
        name, _, rest = entry.partition("|")
        moment, _, text = rest.partition("|")
        if name != node and text.startswith(MARK) and moment.isdigit() and now_s - int(moment) <= STORM_WINDOW_S:
            recent.add(name)
    return NodeView("DRAIN" in words["State"].upper(), reason, len(recent))
