"""What an observer's looks at a cluster say of a maintenance train: the promise, drains, and what it cost. Pure."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

GONE = ("DRAIN", "DOWN", "MAINT", "FAIL", "UNKNOWN", "NOT_RESP", "REBOOT")
"""In such a state no new job comes to a node."""
_AT_WORK = ("ALLOC", "MIX", "COMPLETING")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look."""

    at: float
    nodes: dict[str, str]
    jobs: dict[str, tuple[str, int, int, str]]
    """By number: state, restarts, nodes, name."""


def read(lines: Iterable[str]) -> list[Look]:
    """What the observer wrote; a last line that is torn is left out."""
    found = []
    for line in lines:
        if line.endswith("\n"):
            one = json.loads(line)
            jobs = {number: (job[0], job[1], job[2], job[3]) for number, job in one["jobs"].items()}
            found.append(Look(at=one["at"], nodes=one["nodes"], jobs=jobs))
    return found


def is_gone(state: str) -> bool:
    """Whether no new job would come to a node.

    >>> is_gone("ALLOCATED+DRAIN"), is_gone("MIXED")
    (True, False)
    """
    return any(word in state for word in GONE)


def serving(look: Look) -> int:
    """Nodes that are neither drained nor reserved, nor away."""
    return sum(not is_gone(state) for state in look.nodes.values())


def longest_gap_s(looks: Sequence[Look]) -> float:
    """The longest time between two looks."""
    return max((after.at - before.at for before, after in pairwise(looks)), default=0.0)


def idle_out_s(looks: Sequence[Look]) -> float:
    """Node-seconds in which a node was out and no job was on it."""
    total = 0.0
    for before, after in pairwise(looks):
        out = [one for one in before.nodes.values() if is_gone(one) and not any(word in one for word in _AT_WORK)]
        total += len(out) * (after.at - before.at)
    return total


def drains(looks: Sequence[Look]) -> Counter[str]:
    """How often each node went out."""
    found: Counter[str] = Counter()
    for before, after in pairwise(looks):
        for name, state in after.nodes.items():
            found[name] += is_gone(state) and not is_gone(before.nodes.get(name, ""))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Interruptions:
    """What jobs lost because they were put back."""

    requeues: int = 0
    waiting_s: float = 0.0
    """Node-seconds between an attempt and the next."""
    undone_s: float = 0.0
    """Node-seconds of work that was not saved."""


def interruptions(looks: Sequence[Look], saving: Iterable[str]) -> Interruptions:
    """`saving`: names of jobs that save when they are warned; what others had done is lost with a requeue."""
    requeues, waiting_s, undone_s = 0, 0.0, 0.0
    saves = frozenset(saving)
    began: dict[str, tuple[int, float]] = {}
    nodes: dict[str, int] = {}
    for before, after in pairwise(looks):
        for number, (state, restarts, size, name) in after.jobs.items():
            if state == "RUNNING":
                known = began.get(number)
                if known is None or known[0] != restarts:
                    requeues += known is not None
                    if known is not None and name not in saves:
                        undone_s += nodes[number] * (before.at - known[1])
                    began[number] = (restarts, after.at)
                nodes[number] = max(size, nodes.get(number, 0))
            elif state in ("PENDING", "COMPLETING", "CONFIGURING") and number in began and restarts:
                waiting_s += nodes[number] * (after.at - before.at)
    return Interruptions(requeues=requeues, waiting_s=waiting_s, undone_s=undone_s)
