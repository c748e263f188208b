"""A node's processors and memory under load for some seconds, measured by health/deep/host.py."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator

from trainmaster.health.check import Completed, Place, Source, SourceFault
from trainmaster.health.record import Any

SECONDS = 10.0
"""How long the pattern test takes memory, unless the site says otherwise."""
FAKE_MIB = 64
"""Of memory that is tested under a fake root: many such nodes share one machine."""


def script(name: str) -> str:
    """The path of a program in health/deep."""
    return os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "deep", name)


def parse(done: Completed) -> dict[str, Any]:
    """The object that a measurement printed last. Pure."""
    for line in reversed(done.out.splitlines()):
        try:
            figures = json.loads(line)
        except ValueError:
            continue
        if isinstance(figures, dict) and done.code == 0:
            return figures
    raise SourceFault(f"the measurement ended with {done.code}: {(done.err or done.out).strip()[-160:]}")


def cpu(place: Place) -> Generator[list[str], Completed, Any]:
    """Figures of the processors."""
    return parse((yield [sys.executable, "-I", "-S", script("host.py"), "cpu"]))


def memory(place: Place) -> Generator[list[str], Completed, Any]:
    """Figures of the memory's bandwidth."""
    return parse((yield [sys.executable, "-I", "-S", script("host.py"), "memory"]))


def patterns(place: Place) -> Generator[list[str], Completed, Any]:
    """What came back of what was written to memory."""
    seconds = place.profile.threshold("deep.memory.seconds", SECONDS)
    most = place.profile.threshold("deep.memory.mib", FAKE_MIB if place.root else 0)
    return parse((yield [sys.executable, "-I", "-S", script("host.py"), "patterns", str(seconds), str(most)]))


CPU = Source(name="deep.cpu", about="health/deep/host.py cpu", ask=cpu, deadline_s=60.0, set="deep")
MEMORY = Source(name="deep.memory", about="health/deep/host.py memory", ask=memory, deadline_s=60.0, set="deep")
PATTERNS = Source(
    name="deep.patterns", about="health/deep/host.py patterns", ask=patterns, deadline_s=180.0, set="deep"
)
