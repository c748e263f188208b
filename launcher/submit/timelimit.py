"""Time limits, as people and as Slurm write them. Pure."""

import math
import re
from datetime import timedelta

Duration = str | int | float | timedelta
"""A time limit: "2d", "1d12h", "90m", Slurm's own forms ("1:30:00", "2-12"), minutes as a number, or a timedelta."""

_UNITS_S = {"d": 86400, "h": 3600, "m": 60, "min": 60, "s": 1}
_WITH_UNITS = re.compile(r"(?:\d+(?:\.\d+)?\s*(?:d|h|min|m|s)\s*)+")
_SLURM_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<first>\d+)(?::(?P<second>\d+))?(?::(?P<third>\d+))?")


def seconds_of(value: Duration) -> float:
    """A time limit in seconds; infinity when it is UNLIMITED. Raises ValueError for what is not one.

    >>> [seconds_of(value) for value in ("2d", "1:30:00", 90, "1-12", "30:00")]
    [172800.0, 5400.0, 5400.0, 129600.0, 1800.0]
    """
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, bool):
        raise ValueError(f"{value!r} is not a time")
    elif isinstance(value, int | float):
        seconds = value * 60.0
    else:
        seconds = _seconds_of_text(value.strip().lower())
    if not seconds > 0:
        raise ValueError(f"{value!r} is not more than zero")
    return seconds


def _seconds_of_text(text: str) -> float:
    if text in ("unlimited", "infinite"):
        return math.inf
    if _WITH_UNITS.fullmatch(text):
        return sum(float(n) * _UNITS_S[unit] for n, unit in re.findall(r"(\d+(?:\.\d+)?)\s*(d|h|min|m|s)", text))
    if (match := _SLURM_TIME.fullmatch(text)) is None:
        raise ValueError(f'{text!r} is not a time; write "2d", "12h", "90m", "1:30:00", "2-12:00:00" or minutes')
    days, first, second, third = (None if part is None else int(part) for part in match.group(1, 2, 3, 4))
    # sbatch(1): "M", "M:S", "H:M:S", and after days "H", "H:M", "H:M:S".
    if days is not None:
        return float(days * 86400 + (first or 0) * 3600 + (second or 0) * 60 + (third or 0))
    if third is not None:
        return float((first or 0) * 3600 + (second or 0) * 60 + third)
    return float((first or 0) * 60 + (second or 0))


def slurm_time(seconds: float) -> str:
    """A time limit as Slurm writes it.

    >>> slurm_time(93784)
    '1-02:03:04'
    """
    if math.isinf(seconds):
        return "UNLIMITED"
    minutes, second = divmod(math.ceil(seconds), 60)
    hours, minute = divmod(minutes, 60)
    day, hour = divmod(hours, 24)
    return f"{day}-{hour:02}:{minute:02}:{second:02}"
