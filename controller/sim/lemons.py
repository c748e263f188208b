"""How well lemons are found: the posterior against the rule of three failures in 28 days, on fleets that are drawn."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from trainmaster.controller.lemons import probability
from trainmaster.controller.policy import Lemons

RULE_FAILURES = 3
"""Attributed failures in 28 days, as the plain rule has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LemonWorld:
    """A fleet whose nodes are under jobs for more or less of the time. Rates are per 1,000 node-days under jobs."""

    nodes: int = 2000
    days: float = 28.0
    lemon_share: float = 0.012
    """RSC-1: 1.2 % of nodes."""
    lemon_rate: float = 387.0
    """RSC-1: what follows from 71 % of failures on 1.2 % of nodes; mild lemons: 50."""
    base_rate: float = 1.9
    busy_least: float = 0.2
    """Nodes are under jobs for this share of the time up to all of it, evenly spread (ours)."""
    right_node: float = 0.95
    """Probability that a failure is put on the node that it came from, not on another (ours)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Of one detector, over all fleets."""

    found: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float:
        """Of those it named, the share that are lemons."""
        named = self.found + self.wrong
        return self.found / named if named else 1.0

    @property
    def recall(self) -> float:
        """Of the lemons, the share that it named."""
        there = self.found + self.missed
        return self.found / there if there else 1.0


def score(world: LemonWorld, limits: Lemons, *, seeds: Sequence[int]) -> tuple[Score, Score]:
    """The posterior's score, and the plain rule's, on the same fleets."""
    tallies = [[0, 0, 0], [0, 0, 0]]
    for seed in seeds:
        lemons, counts, exposure_days = draw(world, seed)
        for node in range(world.nodes):
            count = counts.get(node, 0)
            likely = probability(float(count), exposure_days[node], limits) >= limits.probability_min
            named = (likely and count >= limits.incidents_min, count >= RULE_FAILURES)
            for tally, says in zip(tallies, named, strict=True):
                if says:
                    tally[0 if node in lemons else 1] += 1
                elif node in lemons:
                    tally[2] += 1
    posterior, rule = (Score(found=found, wrong=wrong, missed=missed) for found, wrong, missed in tallies)
    return posterior, rule


def draw(world: LemonWorld, seed: int) -> tuple[frozenset[int], dict[int, int], list[float]]:
    """Which nodes are lemons, the failures that are put on each node, and its days under jobs."""
    rng = random.Random(f"lemons {seed}")
    lemons = frozenset(rng.sample(range(world.nodes), round(world.lemon_share * world.nodes)))
    counts: dict[int, int] = {}
    exposure_days = [world.days * rng.uniform(world.busy_least, 1.0) for _ in range(world.nodes)]
    for node in range(world.nodes):
        rate = (world.lemon_rate if node in lemons else world.base_rate) / 1000.0
        at = rng.expovariate(rate)
        while at < exposure_days[node]:
            blamed = node if rng.random() < world.right_node else rng.randrange(world.nodes)
            counts[blamed] = counts.get(blamed, 0) + 1
            at += rng.expovariate(rate)
    return lemons, counts, exposure_days
