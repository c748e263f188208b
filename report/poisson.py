"""Exact confidence intervals of a Poisson rate: Gamma quantiles (Garwood), and nothing else from statistics. Pure."""

import math


def gamma_cdf(shape: float, x: float) -> float:
    """The regularised lower incomplete gamma function P(shape, x).

    >>> round(gamma_cdf(1.0, 1.0), 6)
    0.632121
    """
    if x <= 0:
        return 0.0
    scale = math.exp(shape * math.log(x) - x - math.lgamma(shape))
    if x < shape + 1:
        # Series around 0.
        term = total = 1.0 / shape
        number = shape
        while term > total * 1e-15:
            number += 1
            term *= x / number
            total += term
        return min(1.0, total * scale)
    # Continued fraction (Lentz), for the upper tail.
    tiny = 1e-300
    b = x + 1.0 - shape
    c, d = 1.0 / tiny, 1.0 / b
    fraction = d
    for number in range(1, 10_000):
        a = -number * (number - shape)
        b += 2.0
        d = 1.0 / (a * d + b or tiny)
        c = b + a / c or tiny
        step = d * c
        fraction *= step
        if abs(step - 1.0) < 1e-14:
            break
    return max(0.0, 1.0 - scale * fraction)


def gamma_quantile(shape: float, probability: float) -> float:
    """Where the cumulative distribution of Gamma(shape, 1) reaches a probability.

    >>> round(gamma_quantile(1.0, 0.95), 4)
    2.9957
    """
    low, high = 0.0, max(1.0, shape)
    while gamma_cdf(shape, high) < probability:
        high *= 2.0
    for _ in range(200):
        middle = (low + high) / 2.0
        if gamma_cdf(shape, middle) < probability:
            low = middle
        else:
            high = middle
        if high - low <= 1e-12 * high:
            break
    return (low + high) / 2.0


def count_interval(count: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of the expected number behind an observed one.

    >>> [round(one, 3) for one in count_interval(0)], [round(one, 2) for one in count_interval(10)]
    ([0.0, 3.689], [4.8, 18.39])
    """
    tail = (1.0 - confidence) / 2.0
    low = gamma_quantile(count, tail) if count else 0.0
    return low, gamma_quantile(count + 1, 1.0 - tail)


def mean_time_interval(count: int, exposure: float, confidence: float = 0.95) -> tuple[float, float | None]:
    """The interval of the mean time between events, in the exposure's unit; no upper end where nothing happened."""
    low, high = count_interval(count, confidence)
    return exposure / high, exposure / low if low > 0 else None
