"""The published expectation of ETTR. Pure. Source: Kokolis et al., arXiv 2410.21680 (v1) and HPCA'25 (v2)."""

import math

DAY_S = 86400.0


def first_form(
    *, nodes: float, failures_per_node_day: float, init_s: float, interval_s: float, queue_s: float, run_s: float
) -> float:
    """v1: with the wait after each interruption. `run_s` is the productive time of the run.

    >>> rsc = {"nodes": 2000, "failures_per_node_day": 6.5e-3, "init_s": 300, "queue_s": 0, "run_s": 1e12}
    >>> round(first_form(interval_s=300, **rsc), 3), round(first_form(interval_s=3600, **rsc), 3)
    (0.932, 0.684)
    """
    rate = nodes * failures_per_node_day
    lost = rate * (init_s + interval_s / 2.0) / DAY_S
    return (1.0 - lost) / (1.0 + (init_s + queue_s) / run_s + rate * queue_s / DAY_S)


def second_form(
    *, nodes: float, failures_per_node_day: float, init_s: float, interval_s: float, block_s: float
) -> float:
    """v2: with the time that training stands still for each checkpoint.

    >>> round(second_form(nodes=1500, failures_per_node_day=1e-3, init_s=300, interval_s=5879, block_s=300), 3)
    0.898
    """
    rate = nodes * failures_per_node_day
    return (1.0 - rate * (init_s + interval_s / 2.0) / DAY_S) / (1.0 + block_s / interval_s)


def best_interval_s(*, nodes: float, failures_per_node_day: float, block_s: float) -> float:
    """The checkpoint interval at which the least is lost (Young, Daly)."""
    return math.sqrt(2.0 * block_s * DAY_S / (nodes * failures_per_node_day))
