"""Copies of all ranks' states in their nodes' memory, and going on from them: `Checkpoints`' quick half.

Between two checkpoints on shared storage each rank copies its state into its node's memory every few steps; the keeper
there sends it on to another node (`launcher.node.copy_keeper`). After a restart in the same allocation every rank finds
its copy on its node, also the one that replaces a dead node. All ranks must call the methods together.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainmaster.launcher.rank import copies, saves
from trainmaster.launcher.rank.copy_link import FOLDER, CopyLink, Grant

LINE_EVERY_S = 60.0
"""How often rank 0 writes down what copies cost, at most."""
LOG = logging.getLogger("trainmaster.checkpoints")


@dataclass(frozen=True, slots=True)
class Told:
    """How far what copies cost has been written down."""

    at_s: float = field(default_factory=time.monotonic)
    count: int = 0
    blocked_s: float = 0.0
    summed_s: float = 0.0
    size_bytes: int = 0


class MemoryCopies:
    """The copies of one rank."""

    def __init__(self, env: Mapping[str, str], folder: Path) -> None:
        """`folder`: of the checkpoints that they belong to; copies of another's are not taken."""
        self._link = CopyLink(env)
        self._tag = str(folder.absolute())
        self._slots: dict[Path, copies.Slot] = {}
        self._allowed: bool | None = None
        self._last = -1
        self._pending: int | None = None
        """The step whose copy is being summed."""
        self._saves = saves.Saves(env) if env["RANK"] == "0" else None
        self._world_size = int(env.get("WORLD_SIZE", "1"))
        self._told = Told()
        self.kept: copies.Kept | None = None
        """The copy from which this rank can go on."""
        self.round: tuple[int, int] | None = None
        self.count = 0
        self.skipped = 0
        """Steps at which a copy was due while the one before was not yet whole everywhere."""
        self.blocked_s = 0.0
        self.summed_s = 0.0
        self.size_bytes = 0
        """Of all copies together."""

    @staticmethod
    def there(env: Mapping[str, str]) -> bool:
        """Whether an agent of ours keeps copies for this process."""
        return all(env.get(name) for name in (FOLDER, "RANK", "TRAINMASTER_CYCLE", "LOCAL_WORLD_SIZE"))

    def find(self) -> tuple[int, int] | None:
        """The round (cycle, step) of the copy that this rank can go on from, if it is whole; waits until it is here."""
        found = self._link.restore()
        if found is None:
            return None
        try:
            kept = copies.Kept(found.path, step=found.round[1], size=found.size, crc=found.crc)
        except (OSError, ValueError, KeyError, EOFError) as error:
            LOG.warning("a copy in memory cannot be used: %s", error)
            return None
        if kept.extra.get("tag") != self._tag:
            LOG.warning("the copy in memory is of %s", kept.extra.get("tag"))
            return None
        self.kept, self.round = kept, found.round
        return found.round

    def forget(self) -> None:
        """Let go of the copy that was found, and of its memory."""
        self.kept = None

    def copy(self, state: Any, *, step: int, facts: Mapping[str, Any], agree: Callable[[bool], bool]) -> None:
        """Copy `state`, when the copy before is whole. `agree`: whether something holds on all ranks."""
        started = time.perf_counter()
        self._last = step
        if self._allowed is False:
            return
        pieces, tensors, others = copies.plan(state)
        extra = copies.extra_of(pieces, others, {"tag": self._tag, "facts": dict(facts), "step": step})
        if self._allowed is None:
            size = copies.size_of(pieces) + len(extra)
            fits = size < self._link.share_bytes
            self._allowed = agree(fits)
            if not self._allowed:
                LOG.warning(
                    "no copies in memory: this rank's state takes %d MiB, a copy may take %d MiB (memory_copies)",
                    size >> 20,
                    self._link.share_bytes >> 20,
                )
                return
        grant = self._link.take()
        if grant is None:
            self.skipped += 1
            self._link.skip(step, pending=self._pending)
            return
        slot = self._slots.get(grant.path)
        if slot is None:
            slot = copies.Slot(grant.path, pinned=any(tensor.is_cuda for tensor in tensors))
            self._slots[grant.path] = slot
        try:
            size = slot.write(pieces, tensors, extra)
        except OSError as error:
            LOG.warning("no copy in memory of step %d: %s", step, error)
            self._link.skip(step, pending=None)
            return
        self._pending = step
        threading.Thread(target=self._offer, args=(slot, grant, step, size), name="copy", daemon=True).start()
        # What was gone on from may now be written over.
        self.kept = None
        self.count += 1
        self.size_bytes += size
        self.blocked_s += time.perf_counter() - started
        if time.monotonic() - self._told.at_s > LINE_EVERY_S:
            self._tell(step)

    def _offer(self, slot: copies.Slot, grant: Grant, step: int, size: int) -> None:
        started = time.perf_counter()
        crc = slot.crc()
        self.summed_s += time.perf_counter() - started
        self._pending = None
        self._link.offer(grant, step=step, size=size, crc=crc)

    def _tell(self, step: int) -> None:
        """On rank 0, write down what the copies since the last such line have cost it, as the measure of all."""
        before = self._told
        self._told = Told(time.monotonic(), self.count, self.blocked_s, self.summed_s, self.size_bytes)
        if self._saves is not None and self.count > before.count:
            self._saves.add(
                saves.MEMORY,
                step=step,
                count=self.count - before.count,
                blocked_s=round(self.blocked_s - before.blocked_s, 4),
                wrote_s=round(self.summed_s - before.summed_s, 4),
                size_bytes=(self.size_bytes - before.size_bytes) * self._world_size,
                detail={"skipped": self.skipped},
            )

    def close(self) -> None:
        """Leave the keeper."""
        self._tell(self._last)
        self._link.close()
