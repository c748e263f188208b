"""How often to save, from what a save costs and how often work is lost. Pure.

A save every t seconds costs training `cost_s / t` of its time, and a failure costs half of t on average. J. W. Young
balanced the two (Communications of the ACM 17(9), 1974): t = sqrt(2 cost MTBF). J. T. Daly's higher-order estimate
(Future Generation Computer Systems 22, 2006) is used here; it also holds where the cost is no longer small.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from trainmaster.launcher.record import Event

PRIOR_FAILURES = 1.0
PRIOR_PER_NODE_DAY = 6.5e-3
"""Failures of a node a day that lose work, before the job itself has told: that of Meta's RSC-1 cluster, 8 A100 a node,
in jobs of more than 128 GPUs (A. Kokolis and others, HPCA 2025, arXiv:2410.21680). RSC-2 had 2.3e-3 there; Llama 3's
54 days on 16,384 H100 come to 3.8e-3 (arXiv:2407.21783, table 5)."""
FIRST_EVERY = 10
"""Steps to the first save of a run that has measured nothing yet: it also shows early whether saving works."""
CHANGE_MAX = 1.25
"""The factor by which one decision differs from the one before at most."""
_DAY_S = 86_400.0
# Ends that the job was told of, and had time to save before: they lose nothing that a shorter interval would have kept.
_FORESEEN = frozenset({"timeout", "preemption", "maintenance", "requeue", "user", "requested", "rollback", "start"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What has befallen this job so far."""

    failures: int = 0
    """Interruptions after which ranks went on from the disk, or from nothing."""
    node_days: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """An interval, and the numbers that it comes from."""

    every: int
    """Steps."""
    best_s: float
    """What the formula gives, with its bound."""
    step_s: float
    cost_s: float
    """What training waits for one save."""
    write_s: float
    """What writing one takes beside the training."""
    mtbf_s: float
    nodes: int
    failures: int
    node_days: float


def daly_s(cost_s: float, mtbf_s: float) -> float:
    """Seconds between two saves that lose least, each of which stops the work for `cost_s`.

    Daly 2006, equation 37: sqrt(2 cost M) [1 + sqrt(cost / 2M) / 3 + (cost / 2M) / 9] - cost, and M from cost = 2M on.

    >>> round(daly_s(5.0, 3600.0)), round(math.sqrt(2 * 5.0 * 3600.0))
    (186, 190)
    """
    if cost_s >= 2 * mtbf_s:
        return mtbf_s
    ratio = cost_s / (2 * mtbf_s)
    return math.sqrt(2 * cost_s * mtbf_s) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - cost_s


def mtbf_s(past: Past, *, nodes: int) -> float:
    """Mean seconds between two failures of a job on so many nodes, by the prior and by its own past (Gamma-Poisson)."""
    node_days = PRIOR_FAILURES / PRIOR_PER_NODE_DAY + past.node_days
    per_node_day = (PRIOR_FAILURES + past.failures) / node_days
    return _DAY_S / (per_node_day * max(1, nodes))


def choose(
    *, step_s: float, cost_s: float, write_s: float, past: Past, nodes: int, before: int | None = None
) -> Choice:
    """The interval for the saves to come. `before`: the one that was decided last, from which it moves slowly.

    Never so short that one save has to wait for the one before it, which takes `write_s` in the background.
    """
    mean_s = mtbf_s(past, nodes=nodes)
    best_s = max(daly_s(cost_s, mean_s), write_s + cost_s)
    every = max(1, round(min(best_s / max(step_s, 1e-6), 1e9)))
    if before is not None:
        shortest, longest = math.floor(before / CHANGE_MAX), math.ceil(before * CHANGE_MAX)
        # What makes saves wait for each other is no matter of taste, and is mended at once.
        shortest = max(shortest, math.ceil((write_s + cost_s) / max(step_s, 1e-6)) if write_s else 0)
        every = max(1, shortest, min(every, max(longest, shortest)))
    return Choice(
        every=every,
        best_s=best_s,
        step_s=step_s,
        cost_s=cost_s,
        write_s=write_s,
        mtbf_s=mean_s,
        nodes=nodes,
        failures=past.failures,
        node_days=past.node_days,
    )


def past_of(events: Iterable[Event], *, now_s: float, from_memory: int = 0) -> Past:
    """What a job's record says of its failures. `from_memory`: how many of them copies in memory have answered."""
    failures, node_s = 0, 0.0
    since: dict[tuple[str, int | None], tuple[float, int]] = {}
    for event in events:
        key = (event.role, event.replica)
        if event.state == "RUNNING":
            since[key] = (event.epoch_s, len(event.nodes))
        elif event.state in ("RESTARTING", "REQUEUED", "FINISHED") or event.ends:
            begun_s, nodes = since.pop(key, (event.epoch_s, 0))
            node_s += max(0.0, event.epoch_s - begun_s) * nodes
            if event.state in ("RESTARTING", "REQUEUED") and event.cause not in _FORESEEN:
                failures += 1
    node_s += sum(max(0.0, now_s - begun_s) * nodes for begun_s, nodes in since.values())
    return Past(failures=max(0, failures - from_memory), node_days=node_s / _DAY_S)


def in_words(choice: Choice) -> str:
    """A choice and its reasons in one sentence."""
    return (
        f"a save every {choice.every} steps of {choice.step_s:.3g} s: one keeps training waiting for"
        f" {choice.cost_s:.3g} s and is written in {choice.write_s:.3g} s; work is lost once in"
        f" {choice.mtbf_s / 3600:,.1f} h"
        f" (nodes: {choice.nodes}, failures so far: {choice.failures} in {choice.node_days:.3g} node-days,"
        f" with {PRIOR_PER_NODE_DAY * 1000:g} in 1,000 expected before)"
    )
