"""Which set a HealthCheckProgram looks at: the fast one each time, and once an hour the full one. Pure.

Each node has its own moment of the hour, by its name, so that a fleet does not ask its time servers, drivers and disks
in the same minute. What is not safe beside a job (`Source.idle`) waits until none runs; the rest does not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from trainmaster.health.check import Check
from trainmaster.health.record import Any, NamedTuple

EVERY_S = 3600.0


class Turn(NamedTuple):
    """What this pass looks at besides the fast set, and what is written down about it."""

    full: bool
    """What is safe beside a job."""
    idle: bool
    """What is not."""
    looked: Mapping[str, float]
    """When either was last looked at because its hour had come (epoch seconds)."""


def moment_s(host: str, every_s: float = EVERY_S) -> float:
    """A host's own moment within the hour, in seconds: the same in every pass, evenly spread over many names.

    >>> 0 <= moment_s("gpu001") < 3600 and moment_s("gpu001") != moment_s("gpu002")
    True
    """
    value = 0xCBF29CE484222325  # FNV-1a, of 64 bits, and a last stir: names that differ in a digit lie far apart
    for byte in host.encode():
        value = (value ^ byte) * 0x100000001B3 % (1 << 64)
    value ^= value >> 33
    value = value * 0xFF51AFD7ED558CCD % (1 << 64)
    return (value ^ value >> 33) % (1 << 32) / (1 << 32) * every_s


def due(host: str, now_s: float, last_s: float | None, every_s: float = EVERY_S) -> bool:
    """Whether the host's moment has come since it last looked; at the first pass of a boot it has."""
    if last_s is None or last_s > now_s:
        return True
    moment = moment_s(host, every_s)
    return last_s < (now_s - moment) // every_s * every_s + moment


def turn(host: str, now_s: float, looked: Mapping[str, Any], *, idle: bool, standing: bool) -> Turn:
    """What a pass looks at.

    Args:
        host: its name.
        now_s: epoch seconds.
        looked: of the last pass; anything may stand in it after a crash.
        idle: no job runs here.
        standing: a drain of ours stands for a cause that only the full set can see gone.
    """
    last = {name: at_s for name, at_s in looked.items() if isinstance(at_s, (int, float))}
    full, alone = due(host, now_s, last.get("full")), due(host, now_s, last.get("idle"))
    after = dict(last)
    if full:
        after["full"] = now_s
    if alone and idle:
        after["idle"] = now_s
    return Turn(full or standing, idle and (alone or standing), after)


def chosen(checks: Collection[Check], turn: Turn) -> tuple[Check, ...]:
    """Of the full set's checks those whose turn it is."""
    kept = []
    for check in checks:
        sources = [source for source in check.sources if source.set != "fast"]
        alone = any(source.idle for source in sources)
        if not sources or (turn.idle if alone else turn.full):
            kept.append(check)
    return tuple(kept)
