"""What simulated maintenance trains came to, beside what two plain ways would cost. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from trainmaster.controller.sim.maintenance_world import MaintenanceWorld


@dataclass(slots=True)
class Tally:
    """What a run came to. Hours are host-hours."""

    guarantee_violations: int = 0
    rules_broken: int = 0
    visited: int = 0
    nodes: int = 0
    drains: int = 0
    domain: int = 0
    days: float = 0.0
    """Until the train was through."""
    failures: int = 0
    restarts_unplanned: int = 0
    planned_giant: int = 0
    planned_small: int = 0
    out_h: float = 0.0
    """Hosts that served nobody because of the train."""
    interruptions_h: float = 0.0
    operations_h: float = 0.0
    """The lower bound: what the operations of each host take, one after the other."""
    verified_h: float = 0.0
    hurt: int = 0
    off_boarded: tuple[str, ...] = ()
    paused: str = ""
    decided: int = 0
    tasks: int = 0
    least_available: int = 0
    whys: dict[str, int] = field(default_factory=dict)
    course: list[tuple[float, int, int]] = field(default_factory=list)
    """Of each stretch of three hours when it began in days, the fewest hosts in service, and how many were visited."""

    @property
    def loss_over_lower_bound(self) -> float:
        """All that maintenance cost, over what it had to cost."""
        return (self.out_h + self.interruptions_h) / self.operations_h if self.operations_h else 0.0


def plain_ways(world: MaintenanceWorld, one: Tally) -> tuple[float, float]:
    """What a rolling update, whose every car interrupts the giant, and one window for all would cost, by the bound."""
    cost_h = world.giant_size * (world.init_s + world.lost_s) / 3600.0
    rolling_h = one.out_h + math.ceil(one.nodes / one.domain) * cost_h
    window_h = (one.operations_h + one.verified_h) * (1.0 + world.jitter) + cost_h
    return rolling_h / one.operations_h, window_h / one.operations_h


def figures(world: MaintenanceWorld, runs: Sequence[Tally]) -> dict[str, object]:
    """Flat, for JSON. Of several seeds means; of what must not happen, sums.

    Beside it what two plain ways would cost with the same operations: a rolling update, whose every car interrupts the
    giant, and one window in which everything stands still.
    """

    def mean(values: Sequence[float]) -> float:
        return round(sum(values) / max(1, len(values)), 4)

    cars = [math.ceil(one.nodes / one.domain) for one in runs]
    planned = mean([one.planned_giant for one in runs])
    return {
        "nodes": world.nodes,
        "seeds": len(runs),
        "failures_per_1000_node_days": world.failures_per_1000_node_days,
        "domain_hosts": runs[0].domain,
        "guarantee_violations": sum(one.guarantee_violations for one in runs),
        "rules_broken": sum(one.rules_broken for one in runs),
        "visited_share": mean([one.visited / one.nodes for one in runs]),
        "drains_per_host": mean([one.drains / max(1, one.visited) for one in runs]),
        "cycle_days": mean([one.days for one in runs]),
        "loss_over_lower_bound": mean([one.loss_over_lower_bound for one in runs]),
        "verification_over_lower_bound": mean([one.verified_h / one.operations_h for one in runs]),
        "rolling_loss_over_lower_bound": mean([plain_ways(world, one)[0] for one in runs]),
        "window_loss_over_lower_bound": mean([plain_ways(world, one)[1] for one in runs]),
        "planned_interruptions_giant": planned,
        "rolling_interruptions_giant": mean(cars),
        "planned_over_rolling": round(planned / mean(cars), 4),
        "planned_interruptions_small": mean([one.planned_small for one in runs]),
        "unplanned_interruptions_giant": mean([one.restarts_unplanned for one in runs]),
        "host_tasks": round(mean([one.tasks for one in runs])),
        "decisions": round(mean([one.decided for one in runs])),
        "hosts_hurt": sum(one.hurt for one in runs),
        "off_boarded": ",".join(sorted({name for one in runs for name in one.off_boarded})),
        "least_available": min(one.least_available for one in runs),
        "promised": world.promised,
    }
