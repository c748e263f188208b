"""Which switch each InfiniBand port is cabled to: one question to the neighbour itself, without a look at the fabric.

`smpquery -D nodeinfo 0,1` is a packet that goes over one cable and back, whatever the subnet manager does.
"""

from __future__ import annotations

import re
from collections.abc import Generator

from trainmaster.health import children, files
from trainmaster.health.check import Absent, Completed, Missing, Place, Source, SourceFault
from trainmaster.health.record import Any
from trainmaster.health.sources import infiniband

KEY = "leaves"
"""Of the profile: {"mlx5_0/1": the switch's GUID}."""


def ask(place: Place) -> Generator[list[str], Completed, Any]:
    """Yields the commands; returns {"mlx5_0/1": {"guid", "type"}} of the ports that answer."""
    if not place.profile.table(KEY):
        raise Absent("the profile does not say to which switches this node is cabled")
    return (yield from find(place))


def find(place: Place) -> Generator[list[str], Completed, Any]:
    """As `ask`, whatever the profile says."""
    folder = place.root + infiniband.FOLDER
    ports = [(device, number) for device in files.names(folder) for number in files.names(f"{folder}/{device}/ports")]
    live = [
        (device, number)
        for device, number in ports
        if "ACTIVE" in (files.text(f"{folder}/{device}/ports/{number}/state", 64) or "")
        and files.text(f"{folder}/{device}/ports/{number}/link_layer", 64) == "InfiniBand"
    ]
    if not ports and not place.profile.table(KEY):
        raise Absent("no InfiniBand adapter is here")
    program = children.which("smpquery", place.root)
    if program is None:
        raise Missing("smpquery (infiniband-diags) is not installed")
    found = {}
    said = ""
    for device, number in live:
        done = yield [program, "-C", device, "-P", number, "-D", "nodeinfo", f"0,{number}"]
        facts = parse(done.out) if done.code == 0 else None
        if facts is not None:
            found[f"{device}/{number}"] = facts
        else:
            said = f"exit status {done.code}: {' '.join((done.out + done.err).split())[:120]}"
    if live and not found:
        # One neighbour may be away. If none answers it is the question that fails, and nothing is known.
        raise SourceFault(f"smpquery: no neighbour of {len(live)} ports answered; the last time {said}")
    return found


def parse(text: str) -> dict[str, str] | None:
    """The neighbour's GUID and kind; None for anything else. Pure; form: infiniband-diags 44.

    >>> parse("NodeType:........................Switch\\nGuid:............................0x0000000000200000")
    {'guid': '0x0000000000200000', 'type': 'Switch'}
    """
    fields = dict(re.findall(r"^(\w+):\.*(.*)$", text, re.MULTILINE))
    guid = fields.get("Guid", "").strip().lower()
    return {"guid": guid, "type": fields.get("NodeType", "").strip()} if guid.startswith("0x") else None


SOURCE = Source(
    name="ib.neighbours", about="`smpquery -D nodeinfo 0,1` of each port", ask=ask, deadline_s=15.0, set="full"
)
