"""What one pass leaves for the next, so that runs of a moment have a memory: cursors, baselines, strikes. Per boot.

One JSON file. When it is missing, damaged or of another boot, everything starts anew: no node is drained for that, and
no event is lost, since the kernel's log is then read from its beginning.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Mapping

from trainmaster.health.record import Any, NamedTuple

FOLDER = "/var/lib/trainmaster/health"
FILE = "state.json"
VERSION = 1
LOCK_S = 1.0
"""How long another pass is waited for. After that this one goes on, and leaves nothing behind."""


class State(NamedTuple):
    """All that is remembered."""

    boot_id: str = ""
    sources: Mapping[str, Any] = {}
    """By a source's name, what its `remember` gave."""
    checks: Mapping[str, Any] = {}
    """By a check's id, what its `remember` gave."""
    strikes: Mapping[str, list[float]] = {}
    """By a finding's key, when it was found (epoch seconds)."""
    passes: int = 0
    stuck: Mapping[str, Any] = {}
    """By a source's name, the process that hangs on it and could not be killed: [pid, start time]."""
    looked: Mapping[str, float] = {}
    """When the full set was last looked at (`health/schedule.py`)."""
    acts: bool = False
    """A hook that acts in Slurm goes by it: who only looks leaves it alone, or the hook misses what that pass saw."""


def decode(text: str, boot_id: str) -> tuple[State, str]:
    """The state for this boot, and what is to be said about it: nothing, or why it starts anew. Never raises."""
    fresh = State(boot_id=boot_id)
    if not text:
        return fresh, "there was no state yet"
    try:
        raw = json.loads(text)
        known = raw["version"] == VERSION
        tables = [raw[key] for key in ("sources", "checks", "strikes")]
        if not known or not all(isinstance(table, dict) for table in tables) or not isinstance(raw["passes"], int):
            return fresh, "the state was of another version"
        for times in raw["strikes"].values():
            if not isinstance(times, list) or not all(isinstance(moment, (int, float)) for moment in times):
                return fresh, "the state was damaged"
    except (ValueError, KeyError, TypeError, RecursionError):
        return fresh, "the state was damaged"
    if raw.get("boot_id") != boot_id:
        return fresh, "the node has booted since"
    # A state that an older version left behind has no such tables.
    stuck, looked = (raw[key] if isinstance(raw.get(key), dict) else {} for key in ("stuck", "looked"))
    acts = raw.get("acts") is True
    return State(boot_id, raw["sources"], raw["checks"], raw["strikes"], raw["passes"], stuck, looked, acts), ""


def encode(state: State) -> str:
    """The text of the file."""
    return json.dumps({"version": VERSION, **state._asdict()})


def read_boot_id(root: str = "") -> str:
    """The kernel's name for this boot; "unknown" where it cannot be read."""
    try:
        with open(root + "/proc/sys/kernel/random/boot_id") as stream:
            return stream.read().strip()
    except OSError:
        return "unknown"


class Store:
    """The file, held by one pass at a time."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._lock = -1
        self.trouble = ""
        """Why nothing can be left behind, if so."""

    def open(self, boot_id: str) -> tuple[State, str]:
        """Take the lock if it is free, and read."""
        try:
            os.makedirs(self._folder, mode=0o755, exist_ok=True)
            self._lock = os.open(f"{self._folder}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._wait()
        except OSError as error:
            self.trouble = f"{self._folder} cannot be written: {error.strerror or error}"
        try:
            with open(f"{self._folder}/{FILE}", encoding="utf-8", errors="replace") as stream:
                text = stream.read()
        except OSError:
            text = ""
        return decode(text, boot_id)

    def _wait(self) -> None:
        deadline_s = time.monotonic() + LOCK_S
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                if time.monotonic() > deadline_s:
                    self.trouble = "another pass is under way"
                    return
            time.sleep(0.02)

    def save(self, state: State) -> None:
        """Replace the file at once; a crash leaves the old one or the new. Sets `trouble` instead of raising."""
        if self.trouble:
            return
        fresh = f"{self._folder}/{FILE}.new"
        try:
            with open(fresh, "w", encoding="utf-8") as stream:
                stream.write(encode(state))
            os.replace(fresh, f"{self._folder}/{FILE}")
        except OSError as error:
            self.trouble = f"{self._folder} cannot be written: {error.strerror or error}"

    def close(self) -> None:
        """Let the next pass in."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
