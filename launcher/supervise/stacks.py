"""Where hanging ranks are: their stacks, and from them which ranks wait for others and which do not.

The agent asks (`Stacks`), `waits` judges. A rank that was forked by us, or started as a callable, has a handler for
STACK_SIGNAL that writes its Python stacks even while the interpreter is stuck in C (faulthandler); py-spy, where it is
installed beside the ranks' interpreter and may trace, adds native frames and serves all other Python ranks.
Standard library only.
"""

import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from trainmaster.launcher.node import processes
from trainmaster.launcher.node.ranks import LocalRank, tail
from trainmaster.launcher.rank.worker import STACK_SIGNAL

ANSWER_S = 1.0
"""How long a rank may take to write its stacks; it takes milliseconds."""
PY_SPY_S = 5.0
_TEXT_BYTES = 6 << 10

# Frames in which a rank waits for others: torch's collectives, their barriers and stores, and the backward pass, whose
# collectives run in threads without Python frames.
_WAITING = re.compile(
    r"torch/distributed/|torch/nn/parallel/distributed\.py|torch/autograd/(__init__|graph)\.py|"
    r"torch/cuda/(__init__|streams)\.py.*synchronize|mpi4py|launcher/rank/collectives\.py|"
    r"\b(ncclAllReduce|ncclGroupEnd|MPI_\w+|c10d::|gloo::)"
)
_PYTHON_FRAME = re.compile(r"\.py\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """One rank, when it was asked."""

    rank: int
    state: str
    """Its state in /proc/<pid>/stat: R, S, D (in the kernel), T (stopped), Z; "?" when it is gone."""
    text: str
    """Its stacks; empty when it did not answer."""


def waits(where: Where) -> bool:
    """Whether a rank waits for other ranks: its main thread is in a collective, nothing of the user's on top. Pure.

    A rank that gives no answer, or is stopped, is not one of those that wait.
    """
    if where.state in "TD?":
        return False
    for frame in main_frames(where.text):
        if _WAITING.search(frame):
            return True
        if _PYTHON_FRAME.search(frame) and "/torch/" not in frame:
            return False
    return False


def main_frames(text: str) -> list[str]:
    """The frames of the main thread, newest first, of a text by faulthandler or py-spy. Pure.

    faulthandler marks the thread that took the signal, which is the main one unless that blocks it, and puts the main
    thread last; py-spy names it.
    """
    blocks = [block.strip().splitlines() for block in re.split(r"\n\s*\n", text) if block.strip()]
    blocks = [block for block in blocks if len(block) > 1 and "hread" in block[0]]
    named = [block for block in blocks if "MainThread" in block[0] or "Current thread" in block[0]]
    chosen = named[-1:] or blocks[-1:]
    return [line.strip() for block in chosen for line in block[1:]]


def suspects(all_of_them: Iterable[Where], *, ended: int = 0) -> tuple[int, ...]:
    """The ranks that do not wait for others while some do, or have `ended` well; nobody when all wait. Pure."""
    found = list(all_of_them)
    alone = tuple(sorted(where.rank for where in found if not waits(where)))
    return alone if 0 < len(alone) < len(found) + ended else ()


@dataclass(slots=True)
class Stacks:
    """One round of asking the ranks of this node."""

    ranks: list[LocalRank]
    py_spy: str | None
    _tracers: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    _since: float = field(default_factory=time.monotonic)

    def ask(self) -> None:
        """Have each rank's stacks written to rank<r>.stacks beside its logs."""
        for entry in self.ranks:
            if processes.catches(entry.pid, STACK_SIGNAL):
                processes.send(entry.pid, STACK_SIGNAL)
            if self.py_spy is not None and processes.state(entry.pid) in "RS":
                # A stopped process would hold py-spy up until somebody continues it.
                with kept_stacks(entry).open("ab") as out:
                    self._tracers[entry.rank] = subprocess.Popen(
                        [self.py_spy, "dump", "--native", "--pid", str(entry.pid)],
                        stdin=subprocess.DEVNULL,
                        stdout=out,
                        stderr=subprocess.DEVNULL,
                        start_new_session=True,
                    )

    @property
    def tracers(self) -> frozenset[int]:
        """Pids of tools that look at the ranks."""
        return frozenset(tracer.pid for tracer in self._tracers.values())

    def ended(self, pid: int, status: int) -> None:
        """A child of the agent has ended; if it was one of our tools, it is done."""
        for rank, tracer in list(self._tracers.items()):
            if tracer.pid == pid:
                tracer.returncode = status
                del self._tracers[rank]

    def answer(self) -> list[Where] | None:
        """What they wrote, once all have had their time; None before that."""
        waited_s = time.monotonic() - self._since
        if waited_s < ANSWER_S or (self._tracers and waited_s < PY_SPY_S):
            return None
        for tracer in self._tracers.values():
            tracer.kill()
        return [self._answer_of(entry) for entry in self.ranks]

    def _answer_of(self, entry: LocalRank) -> Where:
        kept = kept_stacks(entry)
        try:
            if entry.stacks_file.exists() and entry.stacks_file.stat().st_size:
                with entry.stacks_file.open("rb") as own, kept.open("ab") as out:
                    shutil.copyfileobj(own, out)
        except OSError:
            pass  # a full disk must not keep the ranks from being restarted
        text = tail(kept, _TEXT_BYTES) or tail(entry.stacks_file, _TEXT_BYTES)
        return Where(rank=entry.rank, state=processes.state(entry.pid), text=text)


def kept_stacks(entry: LocalRank) -> Path:
    """Where the stacks of a rank are kept: beside its logs."""
    return entry.out.with_suffix(".stacks")
