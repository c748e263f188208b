"""How far the clock is off, as chrony's daemon measures it: `chronyc -c tracking`, once an hour."""

from __future__ import annotations

from collections.abc import Generator

from trainmaster.health import children
from trainmaster.health.check import Absent, Completed, Place, Source, SourceFault
from trainmaster.health.record import Any

FIELDS = 14
_OFFSET, _STRATUM, _LEAP = 4, 2, 13


def ask(place: Place) -> Generator[list[str], Completed, Any]:
    """Yields the command; returns {"offset_s", "stratum", "leap"}."""
    program = children.which("chronyc", place.root)
    if program is None:
        raise Absent("chrony is not installed")
    # No name servers: a name of the source is not wanted.
    done = yield [program, "-n", "-c", "tracking"]
    if done.code != 0 and any(
        words in done.out + done.err for words in ("Cannot talk to", "Could not open connection")
    ):
        # Another daemon may keep the clock; whether anybody does, the kernel knows (time.sync).
        raise Absent("chronyd does not run")
    if done.code != 0:
        raise SourceFault(f"chronyc: exit status {done.code}: {' '.join((done.out + done.err).split())[:120]}")
    return parse(done.out)


def parse(text: str) -> dict[str, Any]:
    """One line of 14 values; the fifth is by how many seconds the clock is off. Pure; form: chrony 4.3.

    >>> parse("7F7F0101,,8,1795455000.0,-0.25,0,0,1.5,0,0,0,0,0.0,Normal")["offset_s"]
    -0.25
    """
    fields = text.strip().split(",")
    if len(fields) != FIELDS:
        raise SourceFault(f"chronyc printed {len(fields)} values, not {FIELDS}: {text[:80]!r}")
    try:
        return {"offset_s": float(fields[_OFFSET]), "stratum": int(fields[_STRATUM]), "leap": fields[_LEAP]}
    except ValueError:
        raise SourceFault(f"chronyc printed {text[:80]!r}") from None


SOURCE = Source(name="time.tracking", about="`chronyc -c tracking`", ask=ask, deadline_s=5.0, set="full")
