"""The site's folders, written to and read from by health/deep/storage.py."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator

from trainmaster.health.check import Absent, Completed, Place, Source, SourceFault
from trainmaster.health.record import Any
from trainmaster.health.sources.host_load import script

MIB = 256
"""Written to each folder, unless the site says otherwise."""


def ask(place: Place) -> Generator[list[str], Completed, Any]:
    """Returns {"folders": [figures]}."""
    named = place.profile.table("deep").get("storage")
    folders = [str(folder) for folder in named if str(folder).startswith("/")] if isinstance(named, list) else []
    if not folders:
        raise Absent('the profile names no folder: {"deep": {"storage": ["/scratch"]}}')
    mib = place.profile.threshold("deep.storage.mib", MIB)
    done = yield [sys.executable, "-I", "-S", script("storage.py"), str(mib), *(place.root + one for one in folders)]
    return {"folders": [{**found, "folder": name} for name, found in zip(folders, parse(done, len(folders)))]}  # noqa: B905 - new in 3.10


def parse(done: Completed, count: int) -> list[dict[str, Any]]:
    """One object a folder. Pure."""
    try:
        found = [json.loads(line) for line in done.out.splitlines()]
    except ValueError:
        found = []
    if len(found) != count or not all(isinstance(figures, dict) for figures in found):
        raise SourceFault(f"the measurement ended with {done.code}: {(done.err or done.out).strip()[-160:]}")
    return found


SOURCE = Source(
    name="deep.storage", about="health/deep/storage.py on the profile's folders", ask=ask, deadline_s=120.0, set="deep"
)
