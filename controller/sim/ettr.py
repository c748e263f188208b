"""The ladder from plain Slurm to warm spares, over several seeds, with intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from trainmaster.controller.sim.parameters import LADDER, Care, World
from trainmaster.controller.sim.run import Result, simulate


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One kind of care over all seeds."""

    care: Care
    results: tuple[Result, ...]

    @property
    def ettr(self) -> float:
        """The mean."""
        return sum(one.ettr for one in self.results) / len(self.results)

    @property
    def error(self) -> float:
        """Two standard errors of the mean; 0 for a single seed."""
        if len(self.results) < 2:
            return 0.0
        mean = self.ettr
        variance = sum((one.ettr - mean) ** 2 for one in self.results) / (len(self.results) - 1)
        return 2.0 * math.sqrt(variance / len(self.results))

    def lost(self) -> dict[str, float]:
        """Share of the wall time by what it was lost to."""
        total = sum(one.wall_s for one in self.results)
        found: dict[str, float] = {}
        for one in self.results:
            for why, lost_s in one.lost_s.items():
                found[why] = found.get(why, 0.0) + lost_s / total
        return dict(sorted(found.items(), key=lambda entry: -entry[1]))


def climb(world: World, *, seeds: Sequence[int], ladder: Sequence[Care] = LADDER) -> tuple[Rung, ...]:
    """Every rung on the same seeds."""
    return tuple(Rung(care=care, results=tuple(simulate(world, care, seed=seed) for seed in seeds)) for care in ladder)


def figures(world: World, rungs: Sequence[Rung]) -> dict[str, object]:
    """Flat, for JSON."""
    found: dict[str, object] = {}
    for rung in rungs:
        found[f"{rung.care.name}_ettr"] = round(rung.ettr, 4)
        found[f"{rung.care.name}_ettr_error"] = round(rung.error, 4)
    return found | {
        "nodes": world.nodes,
        "failures_per_1000_node_days": world.failures_per_1000_node_days,
        "days": world.days,
        "seeds": len(rungs[0].results) if rungs else 0,
        "checkpoint_interval_s": round(world.interval_s, 1),
        "failures_in_recovery": world.failures_in_recovery,
        "lemon_share": world.lemon_share,
    }


def with_interval(world: World, minutes: float | None) -> World:
    """The same world with a fixed checkpoint interval."""
    return world if minutes is None else replace(world, checkpoint_interval_s=minutes * 60.0)
