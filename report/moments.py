"""Moments as people write them: 30d ago, a date, now."""

import math
import re
import time
from datetime import datetime

from trainmaster.errors import UsageError

_UNITS_S = {"m": 60, "h": 3600, "d": 86400, "w": 604800}


def epoch_s(text: str, *, now_s: float) -> int:
    """A moment in seconds since the epoch; dates without a zone are this machine's.

    >>> epoch_s("2h", now_s=10_000), epoch_s("now", now_s=7.5), epoch_s("1970-01-02T00:00:00+00:00", now_s=0)
    (2800, 8, 86400)
    """
    if text == "now":
        return math.ceil(now_s)  # what happened in this very second has happened
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", text)
    if match is not None:
        return int(now_s - float(match[1]) * _UNITS_S[match[2]])
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except ValueError:
        raise UsageError(
            f"{text!r} is no moment", hint="write 30d, 12h, now, 2026-11-01 or 2026-11-01T12:00:00"
        ) from None


def period(since: str, until: str) -> tuple[int, int]:
    """Both ends of a time. Raises UsageError when it is none."""
    now_s = time.time()
    first, last = epoch_s(since, now_s=now_s), epoch_s(until, now_s=now_s)
    if first >= last:
        raise UsageError(f"--since {since} is not before --until {until}")
    return first, last
