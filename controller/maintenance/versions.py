"""Versions as people write them, compared number by number. Pure."""

import re
from functools import lru_cache


@lru_cache(maxsize=65536)
def key(version: str) -> tuple[tuple[int, int, str], ...]:
    """What versions sort by: numbers as numbers, words as words, and a word before any number.

    >>> key("580.95.05") < key("580.126.1"), key("5.15.0-1071-nvidia") < key("5.15.0-1080-nvidia")
    (True, True)
    >>> key("24.10-rc1") < key("24.10"), key("24.10") < key("24.10.1")
    (True, True)
    """
    parts = re.findall(r"\d+|[A-Za-z]+", version)
    found = [(1, int(part), "") if part.isdecimal() else (-1, 0, part.lower()) for part in parts]
    # The end sorts between a word (a release candidate comes before its release) and a number.
    return (*found, (0, 0, ""))


def same(one: str, other: str) -> bool:
    """Whether two spellings mean one version.

    >>> same("28.39.3004", "28.39.3004 "), same("1.2", "1.02")
    (True, True)
    """
    return key(one) == key(other)
