"""An NCCL all-reduce over the GPUs of this node, measured by health/deep/collective.py in a Python that has torch.

That Python is the profile's `{"tools": {"python": "/opt/venv/bin/python"}}`, or the one that runs the checks.
"""

from __future__ import annotations

import sys
from collections.abc import Generator

from trainmaster.health.check import Absent, Completed, Missing, Place, Source
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_load
from trainmaster.health.sources.host_load import parse, script

NO_TORCH = 3


def ask(place: Place) -> Generator[list[str], Completed, Any]:
    """Returns the figures, or {"error": …}."""
    count = yield from gpu_load.idle_gpus(place)
    if count < 2:
        raise Absent("there are no two GPUs")
    named = place.profile.table("tools").get("python")
    done = yield [str(named or sys.executable), script("collective.py"), str(count)]
    if done.code == NO_TORCH:
        if named:
            raise Missing(f"{named}: {done.err.strip()}")
        raise Absent("this Python has no torch; the profile's tools.python may name one that has")
    return parse(done._replace(code=0) if done.code == 1 else done)


SOURCE = Source(
    name="deep.gpu.nccl", about="health/deep/collective.py over all GPUs", ask=ask, deadline_s=180.0, set="deep"
)
