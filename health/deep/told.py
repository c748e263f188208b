"""What a node tells of its deep checks, as a file that is replaced after every part. Standard library only, Python 3.9.

A node that gets stuck has told what it did before, and what it was at.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from trainmaster.health.finding import Action, Finding, Verdict

CHECKS, PAIRS, OVER = "checks", "pairs", ""
"""What a node may be at, besides the name of a deep source: the checks that are quick, the tournament, nothing more."""


class Told(NamedTuple):
    """All that one node has told so far."""

    node: str
    doing: str = CHECKS
    findings: tuple[Finding, ...] = ()
    figures: Mapping[str, Mapping[str, float]] = {}
    """By check, what was measured; more is better."""
    named: tuple[str, ...] = ()
    """The figures that the site's profile names, so that they are not compared with others."""
    modes: Mapping[str, str] = {}
    thresholds: Mapping[str, float] = {}
    """The profile's, for the verdicts that need the other nodes."""
    pairs: Mapping[str, float | None] = {}
    """By partner, the seconds of an all-reduce; None: not through."""
    means: str = ""
    rounds: int = 0
    group_s: float | None = None
    """What an all-reduce of all nodes together took."""
    group_nodes: int = 0
    note: str = ""
    python: str = ""

    @property
    def over(self) -> bool:
        """It came to the end of this part."""
        return self.doing == OVER


def encode(told: Told) -> str:
    """The text of the file."""
    findings = [
        [value.value if isinstance(value, (Verdict, Action)) else value for value in one] for one in told.findings
    ]
    return json.dumps({**told._asdict(), "findings": findings})


def decode(text: str) -> Told | None:
    """What a file says; None for one that is damaged."""
    try:
        raw: dict[str, Any] = json.loads(text)
        findings = tuple(
            Finding(str(one[0]), Verdict(one[1]), Action(one[2]), str(one[3]), str(one[4]), one[5], one[6])
            for one in raw.get("findings", ())
        )
        known = {key: value for key, value in raw.items() if key in Told._fields}
        told = Told(**{**known, "findings": findings, "named": tuple(map(str, raw.get("named", ())))})
        sound = [isinstance(table, dict) for table in (told.figures, told.modes, told.thresholds, told.pairs)]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return None
    return told if all(sound) and isinstance(told.node, str) and isinstance(told.doing, str) else None


def write(folder: str, told: Told) -> None:
    """Leave it for whoever asked."""
    fresh = f"{folder}/.{told.node}.{os.getpid()}"
    with open(fresh, "w", encoding="utf-8") as stream:
        stream.write(encode(told))
    os.replace(fresh, f"{folder}/{told.node}.json")


def read(folder: str, node: str) -> Told | None:
    """What a node has told; None when it has told nothing."""
    try:
        with open(f"{folder}/{node}.json", encoding="utf-8", errors="replace") as stream:
            return decode(stream.read())
    except OSError:
        return None
