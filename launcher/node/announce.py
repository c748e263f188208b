"""What the replicas of this node have registered: files in the agent's scratch folder. Standard library only."""

import json
from collections.abc import Iterable
from pathlib import Path


class Announcements:
    """Finds what ranks write by `registry.register`, once each time that it is written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[Path, tuple[int, int]] = {}

    def file(self, cycle: int, rank: int) -> Path:
        """Where a rank of a cycle writes."""
        return self._folder / f"registered-{cycle}.{rank}.json"

    def fresh(self, cycle: int, ranks: Iterable[int]) -> list[tuple[int, str, int]]:
        """Rank, host ("" for this node's address) and port of what has been written since the last call."""
        found = []
        for rank in ranks:
            path = self.file(cycle, rank)
            try:
                status = path.stat()
                # Replaced by rename, so each announcement is a file of its own.
                seen = (status.st_ino, status.st_mtime_ns)
                if self._seen.get(path) == seen:
                    continue
                said = json.loads(path.read_text())
                found.append((rank, str(said["host"]), int(said["port"])))
                self._seen[path] = seen
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return found
