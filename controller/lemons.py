"""Lemons: nodes that fail far more often than their likes, told from bad luck. Pure.

Failures of a node in `t` days under jobs are Poisson with a rate of its own; rates of healthy nodes are
Gamma-distributed around the fleet's, those of lemons around a much higher mean. With the share of lemons as the prior,
the marginals are negative binomial, and Bayes' rule gives the probability that a node is a lemon, the Gamma-Poisson
posterior its rate. Blame comes in parts (1 over the number of suspects), so the count need not be whole.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from trainmaster.controller.memory import Blame, Evidence, Memory
from trainmaster.controller.policy import Lemons, Policy
from trainmaster.controller.snapshot import Snapshot

_DAY_S = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is thought of a node."""

    node: str
    probability: float
    """That it is a lemon."""
    rate: float
    """Expected failures per 1,000 node-days."""
    failures: float
    """Attributed, those long ago counting less."""
    exposure_days: float
    incidents: int


def log_marginal(count: float, exposure_days: float, *, rate: float, shape: float) -> float:
    """The logarithm of the negative binomial: `count` failures in a time, of a rate that is Gamma-distributed.

    Args:
        count: failures; parts of one allowed.
        exposure_days: days under jobs.
        rate: the mean, per 1,000 node-days.
        shape: Gamma's.

    >>> round(math.exp(log_marginal(0, 10, rate=100, shape=1)), 3)
    0.5
    """
    scale = rate / 1000.0 * exposure_days / shape
    return (
        math.lgamma(count + shape)
        - math.lgamma(shape)
        - math.lgamma(count + 1.0)
        + count * (math.log(scale) - math.log1p(scale) if scale > 0 else 0.0)
        - shape * math.log1p(scale)
    )


def probability(count: float, exposure_days: float, policy: Lemons) -> float:
    """That a node with so many failures in so many days is a lemon."""
    lemon = math.log(policy.prior) + log_marginal(
        count, exposure_days, rate=policy.lemon_rate, shape=policy.lemon_shape
    )
    good = math.log1p(-policy.prior) + log_marginal(
        count, exposure_days, rate=policy.base_rate, shape=policy.base_shape
    )
    return 1.0 / (1.0 + math.exp(min(700.0, good - lemon)))


def expected_rate(count: float, exposure_days: float, policy: Lemons) -> float:
    """The posterior mean of the node's rate, per 1,000 node-days, over both kinds."""
    share = probability(count, exposure_days, policy)

    def mean(rate: float, shape: float) -> float:
        return 1000.0 * (shape + count) / (shape / (rate / 1000.0) + exposure_days)

    return share * mean(policy.lemon_rate, policy.lemon_shape) + (1 - share) * mean(policy.base_rate, policy.base_shape)


def faded(value: float, elapsed_s: float, policy: Lemons) -> float:
    """What is left of blame or exposure after a time."""
    return value * math.exp(-max(0.0, elapsed_s) / (policy.window_days * _DAY_S))


def blamed(blame: Blame | None, piece: Evidence, policy: Policy) -> Blame:
    """Blame with one more piece of evidence. Several signs of one failure count as the heaviest of them."""
    now = piece.at
    blame = blame or Blame(at=now)
    weight = faded(blame.weight, now - blame.at, policy.lemons)
    same = abs(now - blame.incident_at) <= policy.evidence.incident_s
    before = blame.incident_weight if same else 0.0
    return Blame(
        weight=weight + max(0.0, piece.weight - before),
        at=max(now, blame.at),
        incident_at=blame.incident_at if same else now,
        incident_weight=max(before, piece.weight),
        incidents=blame.incidents + (0 if same else 1),
    )


def exposed(memory: Memory, look: Snapshot, policy: Policy, now: float) -> Memory:
    """Memory with the time that nodes have spent under jobs since it was last reckoned."""
    elapsed_s = now - memory.exposure_at
    if memory.exposure_at == 0:
        return replace(memory, exposure_at=now)
    if elapsed_s < policy.exposure_every_s:
        return memory
    rest = faded(1.0, elapsed_s, policy.lemons)
    days = elapsed_s / _DAY_S
    exposure = {name: value * rest for name, value in memory.exposure_days.items() if value * rest > 1e-3}
    busy: set[str] = set()
    for held in look.holders.values():
        busy.update(held)
    for name in busy:
        exposure[name] = exposure.get(name, 0.0) + days
    return replace(memory, exposure_days=exposure, exposure_at=now)


def verdicts(memory: Memory, policy: Policy, now: float) -> tuple[Verdict, ...]:
    """What is thought of every node that was ever blamed, the worst first."""
    return tuple(
        sorted(
            (verdict(name, blame, memory.exposure_days, policy, now) for name, blame in memory.blame.items()),
            key=lambda one: (-one.probability, one.node),
        )
    )


def verdict(name: str, blame: Blame, exposure_days: Mapping[str, float], policy: Policy, now: float) -> Verdict:
    """What is thought of one node."""
    failures = faded(blame.weight, now - blame.at, policy.lemons)
    # A node that was blamed within its first minutes has been exposed for some of them.
    days = max(exposure_days.get(name, 0.0), 0.01)
    return Verdict(
        node=name,
        probability=probability(failures, days, policy.lemons),
        rate=expected_rate(failures, days, policy.lemons),
        failures=failures,
        exposure_days=days,
        incidents=blame.incidents,
    )


def condemned(memory: Memory, policy: Policy, now: float) -> tuple[Verdict, ...]:
    """Nodes that are lemons beyond reasonable doubt."""
    limits = policy.lemons
    found = (
        verdict(name, blame, memory.exposure_days, policy, now)
        for name, blame in memory.blame.items()
        if blame.incidents >= limits.incidents_min
    )
    return tuple(sorted((one for one in found if one.probability >= limits.probability_min), key=lambda one: one.node))
