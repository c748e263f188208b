"""What is wrong with a node and no reason to drain it goes into the node's Comment in Slurm, where admins see it.

Slurm is asked when something begins or ends, not at every pass, and no more than once a minute. A comment that somebody
else wrote is neither overwritten nor cleared.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Generator, Sequence

from trainmaster.health import kept, policy, runner
from trainmaster.health.check import Completed, Place, Source, SourceFault
from trainmaster.health.finding import Action, Finding
from trainmaster.health.record import Any, NamedTuple

FILE = "remark.json"
APART_S = 60.0
PATIENCE_S = 5.0


class Remark(NamedTuple):
    """What was last written."""

    keys: tuple[str, ...] = ()
    """Of the findings that it tells; their words may change without a new comment."""
    text: str = ""
    at_s: float = 0.0


def wanted(old: Remark, findings: Sequence[Finding], now_s: float) -> Remark | None:
    """The remark to be made; None when the old one stands, or is too young to be changed. Pure."""
    told = [finding for finding in findings if finding.action is Action.COMMENT and finding.bad]
    keys = tuple(sorted({finding.key for finding in told}))
    if keys == old.keys or 0 <= now_s - old.at_s < APART_S:
        return None
    return Remark(keys, policy.reason(told), now_s)


def comment_of(show_node: str) -> str:
    """The Comment that `scontrol -o show node` tells, which stands last or before ExtSensors and the like. Pure.

    >>> comment_of("NodeName=n01 Reason=x [root@2026-11-23T10:00:00] Comment=[HC] a: b  ")
    '[HC] a: b'
    """
    found = re.search(r"(?:^| )Comment=(.*?)(?= [A-Z][A-Za-z]+=| *$)", show_node.strip())
    return found[1].strip() if found is not None and found[1].strip() != "(null)" else ""


def make(findings: Sequence[Finding], *, folder: str, node: str) -> str:
    """Say in Slurm what stands now; returns what was done, in words."""
    path = f"{folder}/{FILE}"
    old = _read(path)
    new = wanted(old, findings, time.time())
    if new is None:
        return ""
    remark = new

    def ask(place: Place) -> Generator[list[str], Completed, Any]:
        shown = yield ["scontrol", "--oneliner", "show", "node", node]
        there = comment_of(shown.out.partition("\n")[0])
        if shown.code != 0:
            raise SourceFault("slurmctld does not tell")
        if there and not there.startswith(policy.MARK):
            return "the node has a comment of somebody else"
        if there == remark.text:
            return ""
        done = yield ["scontrol", "update", f"NodeName={node}", f"Comment={remark.text}"]
        if done.code != 0:
            raise SourceFault(" ".join(done.err.split())[:120])
        return f"comment on {node}" if remark.text else f"comment on {node} removed"

    source = Source(name="slurm", about="scontrol", ask=ask, deadline_s=PATIENCE_S)
    reading = runner.read_all([source], lambda source: Place(), budget_s=PATIENCE_S)["slurm"]
    if reading.state != "ok":
        # Not remembered: the next pass tries again, a minute from now at the earliest.
        kept.replace(path, json.dumps(old._replace(at_s=remark.at_s)._asdict()))
        return ""
    kept.replace(path, json.dumps(remark._asdict()))
    return str(reading.value)


def _read(path: str) -> Remark:
    raw = kept.table(path)
    try:
        return Remark(tuple(str(key) for key in raw["keys"]), str(raw["text"]), float(raw["at_s"]))
    except (ValueError, KeyError, TypeError):
        return Remark()
