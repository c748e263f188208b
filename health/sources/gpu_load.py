"""Each GPU under load for some seconds, measured by health/deep/gpu.py, all at once as in a real job."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator

from trainmaster.health.check import Absent, Completed, Place, Source, SourceFault
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_query, pci

SECONDS = 4.0
_SCRIPT = "deep/gpu.py"


def idle_gpus(place: Place) -> Generator[list[str], Completed, int]:
    """How many GPUs there are to be loaded; raises Absent when they are not to be."""
    if place.root:
        raise Absent("a fake root has no GPU to load")
    program = gpu_query.tool(place)
    count = len(pci.nvidia_devices(place.root))
    busy = gpu_query.succeeded((yield [program, "--query-compute-apps=pid", "--format=csv,noheader"])).split()
    if busy:
        # Its memory would be tested away from under it, and the figures would mean nothing.
        raise Absent(f"process {busy[0]} uses a GPU; this loads them, and is for idle nodes")
    return count


def ask(place: Place) -> Generator[list[str], Completed, Any]:
    """Yields the commands; returns {"gpus": [figures]}."""
    count = yield from idle_gpus(place)
    script = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), _SCRIPT)
    seconds = place.profile.threshold("deep.gpu.seconds", SECONDS)
    done = yield [sys.executable, "-I", "-S", script, f"0-{max(count - 1, 0)}", str(seconds)]
    return {"gpus": parse(done)}


def parse(done: Completed) -> list[dict[str, Any]]:
    """One object a line. Pure."""
    found = []
    for line in done.out.splitlines():
        try:
            figures = json.loads(line)
        except ValueError:
            raise SourceFault(f"the measurement printed {line[:80]!r}") from None
        if isinstance(figures, dict):
            found.append(figures)
    if not found:
        raise SourceFault(f"the measurement printed nothing (exit status {done.code}): {done.err.strip()[-160:]}")
    return found


SOURCE = Source(
    name="deep.gpu",
    about="health/deep/gpu.py on every GPU",
    ask=ask,
    deadline_s=120.0,
    set="deep",
)
