"""How far values lie from the rest of them, when some may be wild. Pure; standard library only."""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Mapping
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)

_SIGMA_OF_MAD = 1.4826
"""The median absolute deviation of normal noise, times this, is its standard deviation."""


def z_scores(values: Mapping[Key, float], *, floor: float) -> dict[Key, float]:
    """The distance of each value from the median, in standard deviations that a minority of wild values cannot spoil.

    Args:
        values: any, by key.
        floor: least standard deviation, as a part of the median: values that agree to the last digit, as those of three
            idle machines may, shall not make the fourth look wild for a thousandth more.

    >>> z_scores({"a": 10.0, "b": 10.1, "c": 9.9, "d": 20.0}, floor=0.02)["d"] > 30
    True
    """
    if not values:
        return {}
    median = statistics.median(values.values())
    mad = statistics.median(abs(value - median) for value in values.values())
    sigma = max(_SIGMA_OF_MAD * mad, floor * abs(median))
    if sigma <= 0:
        return dict.fromkeys(values, 0.0)
    return {key: (value - median) / sigma for key, value in values.items()}
