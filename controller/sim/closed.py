"""Closed forms that the simulator is held against. Pure."""


def ettr(
    *, nodes: int, failure_per_s: float, interval_s: float, block_s: float, init_s: float, queue_s: float = 0.0
) -> float:
    """Expected effective training time ratio: productive time over wall time.

    Each failure costs half an interval, the start and the wait; each interval costs its block. The form of Kokolis et
    al. (HPCA'25), with the wait beside the start; holds where failures are rare against recovery.
    """
    lost = nodes * failure_per_s * (init_s + queue_s + (interval_s + block_s) / 2.0)
    return (1.0 - lost) / (1.0 + block_s / interval_s)


def renewal(*, nodes: int, failure_per_s: float, interval_s: float, block_s: float, init_s: float) -> float:
    """The same, exactly: failures are Poisson while training and none strike while the job starts.

    An attempt trains for an exponential time and keeps its whole intervals, k with probability p^k (1 - p) where p is
    the probability to get through one.
    """
    from math import exp, expm1

    rate = nodes * failure_per_s
    whole = interval_s + block_s
    kept = interval_s * exp(-rate * whole) / -expm1(-rate * whole)
    return kept / (1.0 / rate + init_s)


def mean_time_to_failure_s(*, nodes: int, failure_per_s: float) -> float:
    """Of a job on so many nodes.

    >>> round(mean_time_to_failure_s(nodes=2048, failure_per_s=6.5e-3 / 86400) / 3600, 1)
    1.8
    """
    return 1.0 / (nodes * failure_per_s)
