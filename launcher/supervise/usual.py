"""What a supervisor knows of its ranks and the record has no line for: `usual.json`, for whoever comes after it.

What was usual of reported values, so that a jump is also one for the next supervisor and the next attempt, who would
otherwise learn the jump as usual. Standard library only.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

FILE = "usual.json"
EVERY_S = 10.0
"""Between two times of writing it down."""


def write(folder: Path, usual: Mapping[str, Sequence[float]]) -> None:
    """Keep the last samples of each value, if the disk takes it."""
    if not usual:
        return
    temporary = folder / f".{FILE}.{os.getpid()}"
    try:
        temporary.write_text(json.dumps({name: list(samples) for name, samples in usual.items()}))
        temporary.rename(folder / FILE)
    except OSError:
        pass


def read(folder: Path) -> dict[str, list[float]]:
    """The samples by name; none when there are none."""
    try:
        found = json.loads((folder / FILE).read_text())
        usual = {str(name): [float(one) for one in samples] for name, samples in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return {name: samples for name, samples in usual.items() if all(map(math.isfinite, samples))}
