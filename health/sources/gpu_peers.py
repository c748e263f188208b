"""Copies between the GPUs of this node, measured by health/deep/peers_gpu.py."""

from __future__ import annotations

import sys
from collections.abc import Generator

from trainmaster.health.check import Absent, Completed, Place, Source
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_load
from trainmaster.health.sources.host_load import parse, script


def ask(place: Place) -> Generator[list[str], Completed, Any]:
    """Returns the figures, or {"error": …}."""
    count = yield from gpu_load.idle_gpus(place)
    if count < 2:
        raise Absent("there are no two GPUs")
    done = yield [sys.executable, "-I", "-S", script("peers_gpu.py"), str(count)]
    # That the driver refuses is a finding about the GPUs, and no failure of the tool.
    return parse(done._replace(code=0) if done.code == 1 else done)


SOURCE = Source(
    name="deep.gpu.peers", about="health/deep/peers_gpu.py on every pair of GPUs", ask=ask, deadline_s=180.0, set="deep"
)
