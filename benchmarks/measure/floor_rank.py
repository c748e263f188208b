"""One rank of the floor's measurement: runs examples/tiny_gpt/train.py for one step and stamps its parts.

STAMPS_FILE SPAWNED_EPOCH_S SCRIPT ARGS...; RANK and the like in the environment. With `run` it is called in a process
that was forked with everything imported.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Stamps = dict[str, float]


def run(stamps: Stamps, file: Path, words: list[str]) -> None:
    """Train for one step beyond the newest checkpoint. The script's own functions are timed, nothing is copied."""
    sys.path.insert(0, str(Path(words[0]).parent))
    import train

    stamps["imported"] = time.time()
    train.open_process_group = _stamped(stamps, "rendezvous", train.open_process_group)  # type: ignore[attr-defined]
    train.CheckpointFolder.load = _stamped(stamps, "loaded", train.CheckpointFolder.load)  # type: ignore[attr-defined]
    train.Metrics.write = _stamped(stamps, "stepped", train.Metrics.write)  # type: ignore[attr-defined]
    train.main(words[1:])
    file.write_text(json.dumps(stamps))
    names = [name for name, module in list(sys.modules.items()) if module is not None]
    (file.parent / "modules.json").write_text(json.dumps(names))


def _stamped(stamps: Stamps, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def stamped(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        stamps.setdefault(name, time.time())
        return result

    return stamped


if __name__ == "__main__":
    started_s = time.time()
    run({"spawned": float(sys.argv[2]), "started": started_s}, Path(sys.argv[1]), sys.argv[3:])
