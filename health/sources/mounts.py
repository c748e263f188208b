"""What is mounted, from /proc/self/mountinfo: reading it touches no file system, so a dead one cannot stop it."""

from __future__ import annotations

import re

from trainmaster.health import files
from trainmaster.health.check import Absent, Place, Source, SourceFault
from trainmaster.health.record import Any


def read(place: Place) -> Any:
    """{mount point: {"type", "source", "options": [...]}}; the last one mounted there counts."""
    text = files.text(place.root + "/proc/self/mountinfo")
    if text is None and place.root:
        raise Absent("the fake root has no table of mounts")
    if text is None:
        raise SourceFault("/proc/self/mountinfo cannot be read")
    return parse(text)


def parse(text: str) -> dict[str, dict[str, Any]]:
    """The table of proc(5). Pure."""
    found: dict[str, dict[str, Any]] = {}
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        left, right = before.split(" "), after.split(" ")
        if not separator or len(left) < 6 or len(right) < 2:
            continue
        options = left[5].split(",") + (right[2].split(",") if len(right) > 2 else [])
        found[_plain(left[4])] = {"type": right[0], "source": _plain(right[1]), "options": sorted(set(options))}
    return found


def _plain(text: str) -> str:
    """Blanks and the like stand there as \\040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


SOURCE = Source(name="fs.table", about="/proc/self/mountinfo", read=read)
