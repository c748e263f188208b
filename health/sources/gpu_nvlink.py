"""NVLink: which links are up, and their error counters, by `nvidia-smi nvlink -s` and `-e`.

Both print nothing where no GPU has NVLink (recorded on one H100 without peers).
"""

from __future__ import annotations

import re
from collections.abc import Generator

from trainmaster.health.check import Absent, Completed, Place, Source
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_query

_GPU = r"GPU \d+: .*?(?:\(UUID: ([^)]+)\))?\s*$"
_STATE = r"\s*Link (\d+): (.*)$"
_ERRORS = r"\s*Link (\d+): (\w+) Errors: (\d+)\s*$"


def ask(place: Place) -> Generator[list[str], Completed, Any]:
    """Yields the commands; returns {GPU's uuid: {"up": [link], "down": [link], "errors": {"3 CRC": count}}}."""
    program = gpu_query.tool(place)
    states = gpu_query.succeeded((yield [program, "nvlink", "-s"]))
    errors = gpu_query.succeeded((yield [program, "nvlink", "-e"]))
    found = parse(states, errors)
    if not any(facts["up"] or facts["down"] for facts in found.values()):
        raise Absent("no GPU here has NVLink")
    return found


def parse(states: str, errors: str) -> dict[str, dict[str, Any]]:
    """The two outputs together. A state that is neither a rate nor "inactive" is left out, not guessed. Pure."""
    found: dict[str, dict[str, Any]] = {}
    for text, pattern in ((states, _STATE), (errors, _ERRORS)):
        gpu = ""
        for line in text.splitlines():
            head = re.match(_GPU, line)
            if head is not None:
                gpu = head[1] or line.partition(":")[0]
                found.setdefault(gpu, {"up": [], "down": [], "errors": {}})
                continue
            match = re.match(pattern, line)
            if match is None or not gpu:
                continue
            if pattern is _ERRORS:
                found[gpu]["errors"][f"{match[1]} {match[2]}"] = int(match[3])
            elif re.match(r"[\d.]+ GB/s", match[2]):
                found[gpu]["up"].append(int(match[1]))
            elif "inactive" in match[2].lower():
                found[gpu]["down"].append(int(match[1]))
    return found


SOURCE = Source(
    name="gpu.nvlink.query",
    about="`nvidia-smi nvlink -s` and `-e`",
    ask=ask,
    deadline_s=20.0,
    set="full",
)
