"""Small files that a pass leaves for the next one, in a folder of ours: read whatever they hold, replaced at once."""

from __future__ import annotations

import json
import os

from trainmaster.health.record import Any


def table(path: str) -> dict[str, Any]:
    """A file's JSON object; empty when there is none, or it is damaged."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            found = json.load(stream)
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def replace(path: str, text: str) -> bool:
    """Write the file anew, the old one or the new; False when that cannot be (a full disk), which costs no pass."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        with open(path + ".new", "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(path + ".new", path)
    except OSError:
        return False
    return True
