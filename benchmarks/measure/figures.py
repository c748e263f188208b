"""Figures of repeated measurements: median, spread, ratios, and the one line of JSON that ends a benchmark. Pure."""

import json
from collections.abc import Mapping, Sequence
from statistics import median

Figures = dict[str, float | int | str | bool | None]


def spread(key: str, values: Sequence[float | None]) -> Figures:
    """Median, extremes and count under `key`, which ends in its unit; a failed repeat (None) makes no figure better.

    With failures the median is taken with each of them as endless, so that it turns null as soon as half have failed.

    >>> spread("x_s", [1.0, 3.0, 2.0])
    {'x_s': 2.0, 'x_min_s': 1.0, 'x_max_s': 3.0, 'x_repeats': 3, 'x_failed': 0}
    >>> spread("x_s", [1.0, None])["x_s"] is None
    True
    """
    stem, _, unit = key.rpartition("_")
    known = [value for value in values if value is not None]
    middle = median([float("inf") if value is None else value for value in values]) if values else float("inf")
    return {
        key: None if middle == float("inf") else _rounded(middle),
        f"{stem}_min_{unit}": _rounded(min(known)) if known else None,
        f"{stem}_max_{unit}": _rounded(max(known)) if known else None,
        f"{stem}_repeats": len(values),
        f"{stem}_failed": len(values) - len(known),
    }


def ratio(figures: Figures, above: str, below: str) -> float | None:
    """One figure over another; None when either is missing or the lower one is nothing."""
    top, bottom = figures.get(above), figures.get(below)
    if not isinstance(top, int | float) or not isinstance(bottom, int | float) or not bottom:
        return None
    return round(top / bottom, 2)


def goal(value: object, *, at_most: float | None = None, at_least: float | None = None) -> str:
    """What to write beside a figure that has a goal: it is reported, never asserted.

    >>> goal(2.0, at_most=3), goal(4.0, at_most=3), goal(None, at_least=20)
    ('met (<= 3)', 'missed (<= 3)', 'not measured (>= 20)')
    """
    words = f"<= {at_most:g}" if at_most is not None else f">= {at_least:g}"
    if not isinstance(value, int | float):
        return f"not measured ({words})"
    met = value <= at_most if at_most is not None else value >= (at_least or 0.0)
    return f"{'met' if met else 'missed'} ({words})"


def missed_goals(figures: Mapping[str, float], goals: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Names of the figures that miss their goal, `at_most` or `at_least`.

    >>> missed_goals({"lost": 1, "found": 3}, {"lost": {"at_most": 0}, "found": {"at_least": 3}})
    ['lost']
    """
    return [
        name
        for name, goal in goals.items()
        if figures[name] > goal.get("at_most", figures[name]) or figures[name] < goal.get("at_least", figures[name])
    ]


def last_line(figures: Mapping[str, object]) -> str:
    """The flat JSON object with which a benchmark ends its standard output."""
    assert not any(isinstance(value, dict | list | tuple) for value in figures.values()), "figures are flat"
    return json.dumps(figures, allow_nan=False)


def _rounded(value: float) -> float:
    return round(value, 4)
