"""The systemd units that the profile names, by one `systemctl show`."""

from __future__ import annotations

from collections.abc import Generator

from trainmaster.health import children
from trainmaster.health.check import Absent, Completed, Missing, Place, Source, SourceFault
from trainmaster.health.record import Any


def ask(place: Place) -> Generator[list[str], Completed, Any]:
    """Yields the command; returns {unit: [active state, sub state]}."""
    units = list(place.profile.names("units"))
    if not units:
        raise Absent("the profile names no unit")
    program = children.which("systemctl", place.root)
    if program is None:
        raise Missing("systemctl is not installed, and the profile names units")
    done = yield [program, "show", "--property=Id,ActiveState,SubState", "--", *units]
    if done.code != 0:
        raise SourceFault(f"systemctl: exit status {done.code}: {' '.join((done.out + done.err).split())[:120]}")
    return parse(done.out, units)


def parse(text: str, units: list[str]) -> dict[str, list[str]]:
    """Blocks of `Key=value`, parted by empty lines, in the order of the question. Pure."""
    blocks = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in text.split("\n\n")]
    blocks = [block for block in blocks if block]
    if len(blocks) != len(units):
        raise SourceFault(f"systemctl told of {len(blocks)} units, not of {len(units)}")
    return {
        unit: [blocks[number].get("ActiveState", ""), blocks[number].get("SubState", "")]
        for number, unit in enumerate(units)
    }


SOURCE = Source(name="svc.systemctl", about="`systemctl show` of the profile's units", ask=ask, deadline_s=10.0)
