"""Why an attempt ended: Slurm's own state, and what was seen on its nodes around that time. Pure."""

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from trainmaster.controller.evidence import owner
from trainmaster.controller.snapshot import members
from trainmaster.report import phases
from trainmaster.slurm.accounting import NodeEvent, Row

BEFORE_S, AFTER_S = 600, 300
"""A cause counts when it was seen from 10 min before to 5 min after the attempt's end (Kokolis et al.)."""

_MAINTENANCE = re.compile(
    r"\b(maint\w*|firmware|upgrad\w*|update|patch\w*|reboot\w*|reimag\w*|planned)\b|\[TM\] (train|maint)", re.IGNORECASE
)
_PLAIN = {
    "COMPLETED": phases.COMPLETED,
    "RUNNING": phases.RUNNING,
    "COMPLETING": phases.RUNNING,
    "SUSPENDED": phases.RUNNING,
    "PENDING": phases.RUNNING,
    "RESIZING": phases.RESIZED,
    "PREEMPTED": phases.PREEMPTED,
    "TIMEOUT": phases.TIME_LIMIT,
    "DEADLINE": phases.TIME_LIMIT,
    "OUT_OF_MEMORY": phases.MEMORY,
    "CANCELLED": phases.CANCELLED,
    "FAILED": phases.FAILED,
    "REQUEUED": phases.REQUEUED,
    "REQUEUE_HOLD": phases.REQUEUED,
    "SPECIAL_EXIT": phases.REQUEUED,
    "NODE_FAIL": phases.NODE,
    "BOOT_FAIL": phases.NODE,
    "LAUNCH_FAILED": phases.NODE,
}
_MAY_BE_THE_NODE = frozenset({"FAILED", "REQUEUED", "NODE_FAIL", "REQUEUE_HOLD", "BOOT_FAIL", "CANCELLED"})
# By the cause that the controller gave an end when a job came back (controller/attempts).
_CONTROLLER = {
    "node_fail": phases.NODE,
    "check": phases.CHECK,
    "suspect": phases.CHECK,
    "launch": phases.NODE,
    "preempted": phases.PREEMPTED,
}


def kind_of(reason: str) -> str:
    """What a node was out for: health check, node failure, maintenance, or "" for a person's own reason.

    >>> [kind_of(one) for one in ("[HC] gpu.xid: 79", "Not responding", "firmware of n3", "bob")]
    ['health check', 'node failure', 'maintenance', '']
    """
    if _MAINTENANCE.search(reason):
        return phases.MAINTAINED
    return {"health": phases.CHECK, "slurm": phases.NODE, "us": phases.CHECK}.get(owner(reason), "")


class Attribution:
    """Node events in the order of their starts, to be looked up by time and node."""

    def __init__(
        self, events: Iterable[NodeEvent] = (), told: Mapping[int, Sequence[tuple[float, str]]] | None = None
    ) -> None:
        """`told`: by job number, when the controller said that it came back, and why."""
        self._events = sorted((one for one in events if one.node), key=lambda one: one.start_s)
        self._starts = [one.start_s for one in self._events]
        self._told = told or {}
        self._members = lru_cache(maxsize=4096)(members)

    def cause(self, attempt: Row) -> str:
        """Why it ended, in the words of `phases`."""
        plain = _PLAIN.get(attempt.state, phases.UNKNOWN)
        if plain in phases.GOES_ON:
            return plain if attempt.end_s is None or plain != phases.RUNNING else phases.UNKNOWN
        if attempt.end_s is None or attempt.state not in _MAY_BE_THE_NODE:
            return plain
        for at, why in self._told.get(attempt.job_id, ()) if self._told else ():
            if -BEFORE_S <= at - attempt.end_s <= AFTER_S and why in _CONTROLLER:
                return _CONTROLLER[why]
        if not self._starts:
            return plain
        found = {kind for kind in self._near(attempt) if kind}
        # A check says more than Slurm's "not responding", and maintenance explains both.
        for kind in (phases.MAINTAINED, phases.CHECK, phases.NODE):
            # Who cancels a job may have seen the same as the check, but a node that falls silent later is no reason.
            if kind in found and (attempt.state != "CANCELLED" or kind == phases.CHECK):
                return kind
        return plain

    def _near(self, attempt: Row) -> Iterable[str]:
        if attempt.end_s is None or not attempt.node_list or not self._starts:
            return
        first = bisect_left(self._starts, attempt.end_s - BEFORE_S)
        held: frozenset[str] | None = None
        for event in self._events[first:]:
            if event.start_s > attempt.end_s + AFTER_S:
                return
            held = self._members(attempt.node_list) if held is None else held
            if event.node in held:
                yield kind_of(event.reason)
