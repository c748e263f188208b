"""The fleet in a time: how much of it was to be had, what took the rest, which drains look wrong. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainmaster.controller.evidence import cause_of, owner
from trainmaster.report import phases
from trainmaster.report.attribution import kind_of
from trainmaster.report.ettr_report import moment
from trainmaster.slurm.accounting import NodeEvent

DOWN, DRAINED, MAINTENANCE = "down", "drained", "maintenance"
SHORT_S = 1800
"""A check's drain that was lifted sooner than that, by whomever, repaired nothing."""
QUIET_S = 86400
"""And nothing else befell the node in a day before and after it."""
STRETCHES = 240
"""How many parts the time is cut into for its history; more than a picture has room for would only cost time."""
OFTEN = 3
"""Times out for its own sake in 28 days: the plain rule for a lemon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Out:
    """A stretch in which one node was not to be had. Epoch seconds, inside the time reported on."""

    node: str
    begin_s: int
    end_s: int
    how: str
    reason: str


def outs(events: Iterable[NodeEvent], since_s: int, until_s: int) -> list[Out]:
    """Stretches that never overlap on a node: where events do, the later one goes on where the earlier one ended."""
    found: list[Out] = []
    reached: dict[str, int] = {}
    for event in sorted((one for one in events if one.node), key=lambda one: (one.node, one.start_s)):
        begin_s = max(event.start_s, since_s, reached.get(event.node, since_s))
        end_s = min(until_s, until_s if event.end_s is None else event.end_s)
        if end_s <= begin_s:
            continue
        reached[event.node] = end_s
        how = DOWN if "DOWN" in event.state else DRAINED
        how = MAINTENANCE if kind_of(event.reason) == phases.MAINTAINED else how
        found.append(Out(node=event.node, begin_s=begin_s, end_s=end_s, how=how, reason=event.reason))
    return found


def size_s(events: Iterable[NodeEvent], since_s: int, until_s: int) -> int:
    """Node-seconds that the cluster had by its own entries; 0 where there are none."""
    total = 0
    reached = since_s
    for event in sorted((one for one in events if not one.node), key=lambda one: one.start_s):
        begin_s = max(event.start_s, reached)
        end_s = min(until_s, until_s if event.end_s is None else event.end_s)
        if end_s > begin_s:
            total += (end_s - begin_s) * event.node_count
            reached = end_s
    return total


def values(
    events: Sequence[NodeEvent],
    since_s: int,
    until_s: int,
    lemons: Sequence[Mapping[str, Any]] | None,
    notes: Sequence[str],
) -> dict[str, Any]:
    """Everything, by name. `lemons`: the controller's verdicts; None where it has no say."""
    found = outs(events, since_s, until_s)
    whole = size_s(events, since_s, until_s)
    parts = dict.fromkeys((DOWN, DRAINED, MAINTENANCE), 0)
    causes: dict[tuple[str, str], list[Out]] = defaultdict(list)
    for one in found:
        parts[one.how] += one.end_s - one.begin_s
        causes[owner(one.reason), cause_of(one.reason)].append(one)
    out = sum(parts.values())
    return {
        "since": moment(since_s * 1000),
        "until": moment(until_s * 1000),
        "node_seconds": whole,
        "availability": 1 - out / whole if whole else None,
        "parts_s": {"in service": whole - out, **parts} if whole else parts,
        "history": history(found, events, since_s, until_s),
        "causes": sorted(
            (
                {
                    "by": by,
                    "cause": cause,
                    "times": len(stretches),
                    "nodes": len({one.node for one in stretches}),
                    "node_hours": sum(one.end_s - one.begin_s for one in stretches) / 3600,
                }
                for (by, cause), stretches in causes.items()
            ),
            key=lambda one: (-float(str(one["node_hours"])), str(one["cause"])),
        ),
        "false_drain_candidates": _doubtful(events, since_s, until_s),
        "often_out": _often(events, until_s),
        "lemons": None if lemons is None else list(lemons),
        "notes": list(notes),
    }


def history(
    found: Iterable[Out], events: Iterable[NodeEvent], since_s: int, until_s: int, most: int = STRETCHES
) -> list[dict[str, Any]]:
    """Node-seconds that were out, by how, and that there were, in equal stretches whose sums are the report's.

    >>> out = Out(node="n1", begin_s=5, end_s=15, how=DOWN, reason="")
    >>> [(one["at"], one["lasted_s"], one["down"]) for one in history([out], [], 0, 25, most=3)]
    [(0, 9, 4), (9, 9, 6), (18, 7, 0)]
    """
    width_s = max(1, -(-(until_s - since_s) // most))
    cluster = [event for event in events if not event.node]
    parts: list[dict[str, Any]] = []
    for begin_s in range(since_s, until_s, width_s):
        end_s = min(until_s, begin_s + width_s)
        there_s = size_s(cluster, begin_s, end_s)
        one = {"at": begin_s, "lasted_s": end_s - begin_s, "node_seconds": there_s}
        parts.append(one | dict.fromkeys((DOWN, DRAINED, MAINTENANCE), 0))
    for out in found:
        for number in range((out.begin_s - since_s) // width_s, (out.end_s - 1 - since_s) // width_s + 1):
            begin_s = since_s + number * width_s
            parts[number][out.how] += min(out.end_s, begin_s + width_s) - max(out.begin_s, begin_s)
    return parts


def _doubtful(events: Sequence[NodeEvent], since_s: int, until_s: int) -> list[dict[str, Any]]:
    by_node: dict[str, list[NodeEvent]] = defaultdict(list)
    for event in events:
        by_node[event.node].append(event)
    found = []
    for event in events:
        if owner(event.reason) != "health" or event.end_s is None or not since_s <= event.start_s < until_s:
            continue
        near = (
            other
            for other in by_node[event.node]
            if other is not event and abs(other.start_s - event.start_s) <= QUIET_S and kind_of(other.reason)
        )
        # What was lifted a moment ago has not had the time to come back.
        proven = until_s - event.end_s >= QUIET_S
        if event.end_s - event.start_s < SHORT_S and not any(near):
            found.append(
                {
                    "node": event.node,
                    "check": cause_of(event.reason),
                    "reason": event.reason,
                    "at": moment(event.start_s * 1000),
                    "lasted_s": event.end_s - event.start_s,
                    "quiet_for_a_day": proven,
                }
            )
    return found


def _often(events: Sequence[NodeEvent], until_s: int) -> list[dict[str, Any]]:
    times: dict[str, list[NodeEvent]] = defaultdict(list)
    for event in events:
        own = kind_of(event.reason) in (phases.CHECK, phases.NODE)
        if event.node and own and until_s - 28 * 86400 <= event.start_s < until_s:
            times[event.node].append(event)
    found = [
        {"node": node, "times": len(those), "last": those[-1].reason}
        for node, those in times.items()
        if len(those) >= OFTEN
    ]
    return sorted(found, key=lambda one: (-int(str(one["times"])), str(one["node"])))
