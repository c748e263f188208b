"""Which nodes a requeued job is to do without: for how long, how many at most, which first. Pure.

A node that fails a job is free again first, so without this it would eat every retry. With too much of it a bad program
would exclude the cluster, node after node, until nothing is left for it.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainmaster.launcher.record import Event
from trainmaster.slurm.values import Job, Node

SHARE_MAX = 0.1
"""Of the nodes that the job could use, those that are left out though they are up; one may be in any case."""
DEAD_S = 900.0
"""How long a lost node counts as dead, which is no matter of opinion; by then Slurm calls it DOWN (SlurmdTimeout)."""
DEAD = frozenset({"node_death", "node_silent", "node_stuck", "supervisor_death", "start"})
"""Causes that mean that a node cannot be reached, or cannot start anything."""
_UNUSABLE = frozenset(
    {"DOWN", "DRAIN", "DRAINED", "DRAINING", "FAIL", "FAILING", "ERROR", "FUTURE", "UNKNOWN", "INVAL"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """A node to do without."""

    node: str
    epoch_s: float
    """When it failed last."""
    why: str
    """The cause, as the record names it."""
    starts_failed: int = 0
    """How often a start failed on it before anything was done."""

    def is_dead(self, now: float) -> bool:
        """It was lost a moment ago: nobody can use it, whatever Slurm still believes."""
        return self.why in DEAD and now - self.epoch_s < DEAD_S

    def as_detail(self) -> dict[str, Any]:
        """For the record."""
        return {"node": self.node, "epoch_s": round(self.epoch_s, 3), "why": self.why}


def recall(events: Sequence[Event], *, now: float, ttl_s: float) -> tuple[Exclusion, ...]:
    """Nodes that failed this job in the last `ttl_s`, by its record."""
    failed: dict[str, Exclusion] = {}
    starts: dict[str, int] = {}
    for event in events:
        for node in _quick(event):
            starts[node] = starts.get(node, 0) + 1
        for node, epoch_s, why in _told(event):
            failed[node] = Exclusion(node=node, epoch_s=epoch_s, why=why)
    return tuple(
        Exclusion(node=one.node, epoch_s=one.epoch_s, why=one.why, starts_failed=starts.get(one.node, 0))
        for one in failed.values()
        if now - one.epoch_s < ttl_s
    )


def _told(event: Event) -> Iterable[tuple[str, float, str]]:
    """Nodes that an event blames: node, when, why."""
    if event.state == "REQUEUED":
        listed = event.detail.get("exclusions", ())
        return [(one["node"], float(one["epoch_s"]), str(one["why"])) for one in listed]
    if event.state not in ("RESTARTING", "NODE_LOST", "DIAGNOSED"):
        return ()
    doubtful = event.detail.get("doubtful", ())
    return [(node, event.epoch_s, event.cause or "") for node in event.dead if node not in doubtful]


def _quick(event: Event) -> Iterable[str]:
    """Nodes on which a start failed at once."""
    if event.state == "REQUEUED" and event.cause == "start":
        return event.dead
    node = event.detail.get("budget", {}).get("quick_node") if event.state in ("RESTARTING", "REQUEUED") else ""
    return (node,) if node else ()


def choose(
    candidates: Sequence[Exclusion], *, eligible: Collection[str] | None, wanted: int, now: float
) -> tuple[Exclusion, ...]:
    """Those of the candidates that are left out, the most certain first.

    Args:
        candidates: Nodes that failed the job.
        eligible: Nodes that Slurm could give to the job, without those that the person excludes; None when unknown.
        wanted: How many the job needs.
        now: Epoch seconds.

    Never so many that the job could not be placed any more, and of nodes that are up never more than a tenth of those
    that are eligible, or one.
    """
    ordered = sorted(candidates, key=lambda one: (one.starts_failed < 2, not one.is_dead(now), -one.epoch_s))
    up = None if eligible is None else set(eligible) - {one.node for one in candidates if one.is_dead(now)}
    most = max(1, int(SHARE_MAX * len(up))) if up is not None else 1
    kept: list[Exclusion] = []
    counted = 0
    for one in ordered:
        # What Slurm would not give to the job anyway costs it nothing.
        matters = eligible is None or one.node in eligible
        if eligible is not None and matters:
            left = set(eligible) - {other.node for other in kept} - {one.node}
            if len(left) < wanted:
                continue
        if matters and not one.is_dead(now):
            if counted >= most:
                continue
            counted += 1
        kept.append(one)
    return tuple(kept)


def usable(nodes: Iterable[Node], job: Job | None, *, excluded: Collection[str]) -> frozenset[str]:
    """Names of the nodes that Slurm could give to a job: in its partitions, with its features, in service."""
    partitions = set(job.partition.split(",")) if job is not None and job.partition else set()
    wanted = job.features if job is not None else ""
    if job is not None and job.prefer and wanted == job.prefer:
        wanted = ""  # of a job that runs where it preferred to, Slurm shows that in place of its constraint
    found = set()
    for node in nodes:
        words = set(re.sub(r"[^A-Z_+]", "", node.state.upper()).split("+"))
        silent = "*" in node.state
        elsewhere = bool(partitions) and not partitions & set(node.partitions)
        if not (words & _UNUSABLE or silent or elsewhere or node.name in excluded) and _has(node.features, wanted):
            found.add(node.name)
    return frozenset(found)


def _has(features: Collection[str], wanted: str) -> bool:
    """Whether a node may serve a constraint: all features of a plain list, one of any other expression's.

    >>> _has(("h100", "ib"), "h100&ib"), _has(("h100",), "[rack1|rack2]"), _has(("h100",), "")
    (True, False, True)
    """
    names = re.findall(r"[A-Za-z][\w.:-]*", wanted)
    if not names:
        return True
    plain = not re.search(r"[|\[*(!]", wanted)
    return all(name in features for name in names) if plain else any(name in features for name in names)


def merged(own: Sequence[str], current: Sequence[str], ours_before: Collection[str], ours: Sequence[str]) -> str:
    """The whole ExcNodeList: what the person excludes, what stands in Slurm and is not ours, and ours of today.

    Args:
        own: Hostlists of the person's `--exclude`.
        current: Node names that the job excludes in Slurm now; somebody may have added some there.
        ours_before: Node names that we added at earlier requeues.
        ours: Node names of now.

    >>> merged(["n06"], ["n03", "n06", "n07"], {"n03"}, ["n04"])
    'n06,n07,n04'
    """
    theirs = [node for node in current if node not in ours_before]
    return ",".join(dict.fromkeys(filter(None, (*own, *theirs, *ours))))


def as_before(events: Iterable[Event]) -> frozenset[str]:
    """Node names that earlier requeues of ours excluded."""
    last: Mapping[str, Any] = {}
    for event in events:
        if event.state == "REQUEUED" and "excluded" in event.detail:
            last = event.detail
    return frozenset(last.get("excluded", ()))
