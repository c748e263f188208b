"""The rank processes of one node in one cycle: start them, see them end, stop them with all that they started.

Standard library only. The owner must be a subreaper (`processes.adopt_orphans`), so that every descendant of a rank
stays findable below it whatever the rank does.
"""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainmaster.launcher.node import processes
from trainmaster.launcher.rank import page
from trainmaster.launcher.rank.worker import Task

TAIL_BYTES = 16 << 10


@dataclass(slots=True, kw_only=True)
class LocalRank:
    """One rank process here."""

    rank: int
    out: Path
    err: Path
    error_file: Path
    step_file: Path
    modules_file: Path
    stacks_file: Path
    """What it writes when it is asked for its stacks."""
    pid: int = 0
    """0 until the fork server has reported it."""
    code: int | None = None
    ended_epoch_s: float = 0.0
    stopped: bool = False
    asked: bool = False
    """It was sent SIGUSR2."""

    def written_bytes(self) -> int:
        """What it has written to its files so far."""
        total = 0
        for path in {self.out, self.err}:
            try:
                total += path.stat().st_size
            except OSError:
                continue
        return total


def tail(path: Path, size: int = TAIL_BYTES) -> str:
    """The end of a file, at most `size` bytes of it, however long its lines are."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - size))
            return stream.read(size).decode(errors="replace")
    except OSError:
        return ""


def start_cold(argv: Sequence[str], task: Task) -> int:
    """Start a rank as a new process in its own session and return its pid. Raises OSError."""
    with Path(task.out).open("ab") as out, Path(task.err).open("ab") as err:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=task.env,
            cwd=task.cwd,
            start_new_session=True,
            # The agent has one thread, so running Python between fork and exec is safe here.
            preexec_fn=processes.die_with_parent,
        )
    # The agent reaps all its children itself; Popen must neither wait nor warn about this one.
    process.returncode = 0
    return process.pid


@dataclass(slots=True)
class Ranks:
    """All ranks of a cycle on this node."""

    cycle: int
    ranks: dict[int, LocalRank] = field(default_factory=dict)
    stop_asked_at: float | None = None
    _grace_s: float = 0.0

    def ended(self, pid: int, status: int) -> LocalRank | None:
        """Note that a child has ended; returns its rank, if it was one."""
        for entry in self.ranks.values():
            if entry.pid == pid and entry.code is None:
                entry.code = os.waitstatus_to_exitcode(status)
                entry.ended_epoch_s = time.time()
                return entry
        return None

    def running(self) -> list[LocalRank]:
        """Ranks that have not ended."""
        return [entry for entry in self.ranks.values() if entry.code is None]

    def checkpoint(self, *, again: bool = False) -> int:
        """Send SIGUSR2 to each rank that handles it; returns how many do. `again`: not for a second time."""
        asked = [entry for entry in self.running() if entry.pid and processes.catches(entry.pid, signal.SIGUSR2)]
        for entry in asked:
            if not (again and entry.asked):
                entry.asked = True
                processes.send(entry.pid, signal.SIGUSR2)
        return len(asked)

    def stop(self, grace_s: float) -> None:
        """Begin to stop all ranks: SIGTERM now, SIGKILL after `grace_s`. `step_stop` carries on."""
        if self.stop_asked_at is not None:
            self._grace_s = min(self._grace_s, grace_s)
            return
        self.stop_asked_at = time.monotonic()
        self._grace_s = grace_s
        for entry in self.running():
            entry.stopped = True
            if entry.pid and grace_s > 0:
                processes.send_group(entry.pid, signal.SIGTERM)
                if page.read(entry.step_file).holds:
                    # SIGTERM would have ended it at once, had it not been told to wait for our orders.
                    processes.send(entry.pid, signal.SIGKILL)

    def step_stop(self, spared: frozenset[int]) -> bool:
        """Carry a stop on; True once no rank and nothing that a rank started is left.

        `spared`: children of ours that are no ranks, with all that is below them.
        """
        if self.stop_asked_at is None:
            return False
        if self.running() and time.monotonic() - self.stop_asked_at < self._grace_s:
            return False
        left = self._left(spared)
        # Ranks that are gone leave their helpers (data loaders) without anything to do: no grace for those.
        for pid in left:
            processes.send(pid, signal.SIGKILL)
        return not left and not self.running()

    def _left(self, spared: frozenset[int]) -> set[int]:
        found = processes.descendants(os.getpid()) - spared
        for pid in spared:
            found -= processes.descendants(pid)
        return found

    def stuck_s(self) -> float:
        """How long a stop has been waiting for processes that SIGKILL does not end."""
        return 0.0 if self.stop_asked_at is None else time.monotonic() - self.stop_asked_at - self._grace_s
