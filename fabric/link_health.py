"""The site's file of bad links: which nodes and cables are not what their peers are, as the last look saw them.

`trainmaster fabric health --publish` writes it; submission, placement and the health checks of the fabric's host read
it. It says itself for how long it is good: an old one tells of links that may have been mended. Standard library only.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trainmaster.errors import FabricError

FORMAT = "trainmaster link health 1"
DEFAULT_FILE = Path("/etc/trainmaster/link-health.json")
# A clock of another machine may be a little ahead of ours.
_AHEAD_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One thing that speaks against a node."""

    code: str
    """rail-missing, wrong-socket, rate, errors, absent, uplink."""
    subject: str = ""
    """The adapter, mlx5_2; empty for the node."""
    detail: str = ""
    score: float = 1.0
    """Of the cable; 0 where there is none."""
    seen_at_s: float = 0.0
    """When it was seen last, epoch seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BadNode:
    """A node whose links are not all sound."""

    score: float
    """1 would be sound, 0 has no link."""
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BadLink:
    """A cable that is there and not sound."""

    ports: tuple[str, str]
    """GUID and port of both ends."""
    ends: tuple[str, str]
    """The same by name."""
    host: str
    """Whose cable it is; empty between switches."""
    device: str
    score: float
    causes: tuple[str, ...]
    codes: tuple[str, ...]
    """Of each cause, what kind it is: rate, errors, down."""
    seen_at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkHealth:
    """The whole file."""

    taken_at_s: float
    """Of the look, epoch seconds."""
    good_for_s: float
    """How long after that it may be acted upon."""
    source: str = ""
    known: str = ""
    """Every node that any look has seen, as a host list."""
    nodes: Mapping[str, BadNode] = field(default_factory=dict)
    links: tuple[BadLink, ...] = ()

    def scores(self) -> dict[str, float]:
        """The score of each node that has one below 1."""
        return {name: node.score for name, node in self.nodes.items()}


def encode(health: LinkHealth) -> str:
    """The text of the file."""
    return json.dumps({"format": FORMAT, **asdict(health)}, indent=1) + "\n"


def decode(text: str) -> LinkHealth:
    """What a text says. Raises FabricError when it is no such file."""
    try:
        raw = json.loads(text)
        if raw["format"] != FORMAT:
            raise FabricError(f"this file says it is {str(raw['format'])[:60]!r}, not {FORMAT!r}")
        return LinkHealth(
            taken_at_s=_finite(raw["taken_at_s"]),
            good_for_s=_finite(raw["good_for_s"]),
            source=str(raw["source"]),
            known=str(raw["known"]),
            nodes={str(name): _node(node) for name, node in raw["nodes"].items()},
            links=tuple(_link(link) for link in raw["links"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise FabricError(
            f"this is no file of bad links: {type(error).__name__} {str(error)[:80]}",
            hint="`trainmaster fabric health --publish FILE` writes one",
        ) from None


def _finite(value: Any) -> float:
    """A number. JSON as Python reads it has NaN too, and a file of that age would never be too old."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is no number")
    return number


def _node(raw: Mapping[str, Any]) -> BadNode:
    evidence = tuple(
        Evidence(
            code=str(one["code"]),
            subject=str(one["subject"]),
            detail=str(one["detail"]),
            score=_finite(one["score"]),
            seen_at_s=_finite(one["seen_at_s"]),
        )
        for one in raw["evidence"]
    )
    return BadNode(score=min(1.0, max(0.0, _finite(raw["score"]))), evidence=evidence)


def _link(raw: Mapping[str, Any]) -> BadLink:
    port, other = (str(one) for one in raw["ports"])
    end, far = (str(one) for one in raw["ends"])
    causes, codes = tuple(str(cause) for cause in raw["causes"]), tuple(str(code) for code in raw["codes"])
    if len(causes) != len(codes):
        raise ValueError("causes without a kind")
    return BadLink(
        ports=(port, other),
        ends=(end, far),
        host=str(raw["host"]),
        device=str(raw["device"]),
        score=min(1.0, max(0.0, _finite(raw["score"]))),
        causes=causes,
        codes=codes,
        seen_at_s=_finite(raw["seen_at_s"]),
    )


def read(path: Path, *, now_s: float) -> LinkHealth:
    """The file, if it may be acted upon.

    Raises:
        FabricError: it cannot be read, is no such file, or is too old.
    """
    try:
        found = decode(path.read_text(errors="replace"))
    except OSError as error:
        raise FabricError(f"{path} cannot be read: {error.strerror}") from None
    except FabricError as error:
        raise FabricError(f"{path}: {error.message}", hint=error.hint) from None
    if said := stale(found, now_s=now_s):
        raise FabricError(f"{path} {said}, so it is ignored", hint="does `trainmaster fabric health --publish` run?")
    return found


def stale(health: LinkHealth, *, now_s: float) -> str:
    """Why it may not be acted upon any more; nothing when it may. Pure.

    >>> stale(LinkHealth(taken_at_s=0.0, good_for_s=3600.0), now_s=7300.0)
    'is of 2.0 hours ago and good for 1.0'
    """
    age_s = now_s - health.taken_at_s
    if age_s > health.good_for_s:
        return f"is of {age_s / 3600:.1f} hours ago and good for {health.good_for_s / 3600:.1f}"
    return f"is of a time {-age_s / 3600:.1f} hours ahead" if age_s < -_AHEAD_S else ""
