"""What the fabric's side says against nodes, through the same ledger as their own checks. Runs on the fabric's host.

A node sees its adapters. It cannot see that its cable is in another rail's socket, nor the errors that the switch
counts on what it sends. `trainmaster fabric health --publish` finds those; here they become findings (`fabric.rail` …),
which the site's profile weighs and the ledger acts upon: one drain a cause, none that was lifted by hand is repeated,
what others wrote is left alone, and a node is resumed once two looks in a row find nothing.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator, Mapping, Sequence

from trainmaster.health import enforce, hosts, kept, ledger, policy, remark, runner
from trainmaster.health.check import Completed, Place, Source, SourceFault
from trainmaster.health.finding import DRAINS, Action, Finding, Verdict, fail, warn
from trainmaster.health.profile import Profile
from trainmaster.health.record import Any, NamedTuple

FORMAT = "trainmaster link health 1"
FILE = "/etc/trainmaster/link-health.json"
STATE = "/var/lib/trainmaster/health/fabric"
LAST = "last.json"
BOOT = "fabric"
"""In place of a boot: to these causes a reboot of the node is nothing."""
ERRORS_SCORE = 0.1
"""A link that is worth less for its errors asks for a drain: ten times the errors that halve it."""
CHECKS = {
    "fabric.rail": "a cable is in a socket of another unit or rail",
    "fabric.missing": "no cable of an adapter is up",
    "fabric.rate": "a cable is narrower or slower than its peers'",
    "fabric.errors": "a port of a cable, at either end, counts errors",
    "fabric.absent": "a node that was there is not on the fabric any more",
}
_IDS = {
    "wrong-socket": "fabric.rail",
    "rail-missing": "fabric.missing",
    "rate": "fabric.rate",
    "errors": "fabric.errors",
    "absent": "fabric.absent",
}


class Look(NamedTuple):
    """The site's file of bad links, as far as nodes are concerned."""

    taken_at_s: float
    known: str
    """Every node that a look has seen, as a host list."""
    nodes: Mapping[str, Any]
    trouble: str = ""
    """Why it may not be acted upon."""


class Told(NamedTuple):
    """What came of one node."""

    node: str
    findings: tuple[Finding, ...]
    said: tuple[str, ...]
    """What was done about it in Slurm, in words."""


def read(path: str, now_s: float) -> Look:
    """The file; with `trouble` where it cannot be used."""
    raw = kept.table(path)
    try:
        if raw.get("format") != FORMAT:
            return Look(0.0, "", {}, f"{path} is no file of bad links")
        look = Look(float(raw["taken_at_s"]), str(raw["known"]), {str(k): v for k, v in raw["nodes"].items()})
        age_s, good_for_s = now_s - look.taken_at_s, float(raw["good_for_s"])
        for node in look.nodes.values():
            findings_of(node, Profile({}))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return Look(0.0, "", {}, f"{path} is damaged: {type(error).__name__} {str(error)[:60]}")
    if not -300.0 <= age_s <= good_for_s:
        return look._replace(trouble=f"{path} is of {age_s / 3600:.1f} hours ago and good for {good_for_s / 3600:.1f}")
    return look


def findings_of(node: Mapping[str, Any] | None, profile: Profile) -> tuple[Finding, ...]:
    """Of a node that the look has seen (None: nothing speaks against it), a finding for each check. Pure."""
    bad: list[Finding] = []
    for one in node["evidence"] if node else ():
        check = _IDS.get(str(one["code"]))
        if check is not None:
            bad.append(_judged(check, one, profile)._replace(check=check))
    found = {finding.check for finding in bad}
    if "fabric.absent" in found:
        # What hangs on no switch is neither well nor ill cabled: nothing is said of that, so no cause of it is gone.
        return tuple(bad)
    return (*bad, *(Finding(check, Verdict.OK) for check in CHECKS if check not in found))


def _judged(check: str, one: Mapping[str, Any], profile: Profile) -> Finding:
    detail, subject = str(one["detail"]), str(one["subject"])
    if check == "fabric.rail":
        return fail(Action.DRAIN, detail, subject=subject)
    score, limit = float(one["score"]), profile.threshold("fabric.errors", ERRORS_SCORE)
    if check == "fabric.errors" and score < limit:
        return fail(Action.DRAIN, detail, subject=subject, value=score, threshold=limit)
    # What the node's own checks see too, they drain for.
    return warn(detail, subject=subject, value=score)


def pass_over(look: Look, *, profile: Profile, state: str, dry_run: bool = False) -> list[Told]:
    """Do what a look asks for: drain, resume, comment.

    Args:
        look: without trouble.
        profile: of the site.
        state: the folder in which a ledger for each node lies.
        dry_run: ask slurmctld, change nothing, and say what would be done.
    """
    before = kept.table(f"{state}/{LAST}")
    # The same look twice shows nothing new: a node that is well in it has not been well twice.
    again = before.get("taken_at_s") == look.taken_at_s
    remarked = before.get("remarked")
    comments: dict[str, str] = dict(remarked) if isinstance(remarked, dict) else {}
    told = []
    for node in sorted({*look.nodes, *_with_ledgers(state), *comments}):
        seen = hosts.matches(look.known, node)
        findings = findings_of(look.nodes.get(node), profile) if seen else ()
        decision = policy.decide(findings, checks={}, strikes={}, profile=profile, now_s=time.time())
        acting = any(finding.action in DRAINS for finding in decision.findings)
        said, held = "", ledger.Ledger()
        if seen and (acting or not again):
            folder = f"{state}/{node}"
            if acting or os.path.exists(f"{folder}/{enforce.FILE}"):
                said, held = enforce.enforce(decision, folder=folder, node=node, boot_id=BOOT, dry_run=dry_run)
        told_there = _comment(node, decision.findings, held, comments, dry_run) if seen else ""
        words = tuple(word for word in (said, told_there) if word not in ("", enforce.NOTHING))
        told.append(Told(node, tuple(finding for finding in decision.findings if finding.bad), words))
    if not dry_run:
        kept.replace(f"{state}/{LAST}", json.dumps({"taken_at_s": look.taken_at_s, "remarked": comments}))
    return told


def _with_ledgers(state: str) -> list[str]:
    try:
        return [name for name in os.listdir(state) if os.path.exists(f"{state}/{name}/{enforce.FILE}")]
    except OSError:
        return []


def _comment(
    node: str, findings: Sequence[Finding], held: ledger.Ledger, comments: dict[str, str], dry_run: bool
) -> str:
    """Keep the node's Comment in Slurm as it should be, if it is ours to write; returns what was done, in words.

    The node's own checks write there too, and win: what stands there of theirs stays.
    """
    told = [finding for finding in findings if finding.bad and finding.action is not Action.NONE]
    if held.reason:
        told = [finding for finding in told if finding.action is Action.COMMENT]
    text = policy.reason(told)
    if not text and node not in comments:
        return ""

    def ask(place: Place) -> Generator[list[str], Completed, Any]:
        shown = yield ["scontrol", "--oneliner", "show", "node", node]
        if shown.code != 0:
            raise SourceFault("slurmctld does not tell")
        there = remark.comment_of(shown.out.partition("\n")[0])
        if there == text or (there and not there.startswith(ledger.FABRIC)):
            return ""
        if not dry_run:
            done = yield ["scontrol", "update", f"NodeName={node}", f"Comment={text}"]
            if done.code != 0:
                raise SourceFault(" ".join(done.err.split())[:120])
        return f"comment on {node}" if text else f"comment on {node} removed"

    source = Source(name="slurm", about="scontrol", ask=ask, deadline_s=remark.PATIENCE_S)
    reading = runner.read_all([source], lambda source: Place(), budget_s=remark.PATIENCE_S)["slurm"]
    if reading.state != "ok":
        return f"could not comment on {node}: {reading.detail}"
    if text:
        comments[node] = text
    else:
        comments.pop(node, None)
    return str(reading.value)


def told_only(look: Look, *, profile: Profile) -> list[Told]:
    """What a look says against nodes, and nothing is asked or done."""
    told = []
    for node in sorted(look.nodes):
        findings = findings_of(look.nodes[node], profile)
        decision = policy.decide(findings, checks={}, strikes={}, profile=profile, now_s=0.0)
        told.append(Told(node, tuple(finding for finding in decision.findings if finding.bad), ()))
    return told
