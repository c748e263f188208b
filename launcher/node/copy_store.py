"""The copies that one node holds in its memory: two files a rank, and what is in them. Standard library only.

A rank's two files are used in turn, and never the one whose round is committed, that is whole on every rank: so what
goes wrong while a copy is made or received leaves the last whole round as it was.
"""

import os
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

Round = tuple[int, int]
"""Cycle and step."""
SLOTS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One rank's state of one round, in a file here."""

    rank: int
    round: Round
    slot: int
    size: int
    """Bytes."""
    crc: int
    """CRC-32 of the file."""


class NoRoom(Exception):
    """A copy does not fit the budget, or the memory."""


def slot_to_write(held: Mapping[int, Round], committed: Round | None) -> int:
    """Which of a rank's files is the next to be written. `held`: slot -> the round in it.

    >>> slot_to_write({0: (0, 50), 1: (0, 100)}, (0, 50)), slot_to_write({0: (0, 50)}, None)
    (1, 1)
    """
    free = [slot for slot in range(SLOTS) if slot not in held]
    if free:
        return free[0]
    return min((slot for slot in held if held[slot] != committed), key=lambda slot: held[slot])


class Store:
    """The index of the files in one folder. Each call is whole; threads may call at once."""

    def __init__(self, folder: Path, *, budget_bytes: int) -> None:
        self.folder = folder
        self.budget_bytes = budget_bytes
        self._lock = threading.Lock()
        self._shards: dict[tuple[int, int], Shard] = {}
        """By rank and slot."""
        self._sizes: dict[tuple[int, int], int] = {}

    def path(self, rank: int, slot: int) -> Path:
        """Where a rank's file lies."""
        return self.folder / f"{rank}.{slot}"

    def clear(self, rank: int, committed: Round | None) -> int:
        """Forget what is in the rank's next file, which is about to be written, and return its slot."""
        with self._lock:
            held = {slot: shard.round for (one, slot), shard in self._shards.items() if one == rank}
            slot = slot_to_write(held, committed)
            self._shards.pop((rank, slot), None)
            return slot

    def make_room(self, rank: int, slot: int, size: int) -> None:
        """Give a file its size, in memory that is really there. Raises NoRoom."""
        with self._lock:
            others = sum(self._sizes.values()) - self._sizes.get((rank, slot), 0)
            if others + size > self.budget_bytes:
                raise NoRoom(f"{size} bytes more than {others} are over the budget of {self.budget_bytes}")
            try:
                allocate(self.path(rank, slot), size)
            except OSError as error:
                raise NoRoom(f"{self.folder} has no room for {size} bytes: {error}") from None
            self._sizes[rank, slot] = size

    def add(self, shard: Shard) -> None:
        """A file is written whole."""
        with self._lock:
            self._shards[shard.rank, shard.slot] = shard
            self._sizes[shard.rank, shard.slot] = shard.size

    def find(self, rank: int, round: Round) -> Shard | None:
        """The rank's copy of a round, if it is here."""
        with self._lock:
            found = (shard for (one, _), shard in self._shards.items() if one == rank and shard.round == round)
            return next(found, None)

    def drop(self, shard: Shard) -> None:
        """What a file holds is of no use."""
        with self._lock:
            if self._shards.get((shard.rank, shard.slot)) == shard:
                del self._shards[shard.rank, shard.slot]

    def holds(self, shard: Shard) -> bool:
        """Whether a file still has in it what it had."""
        with self._lock:
            return self._shards.get((shard.rank, shard.slot)) == shard

    def rounds(self) -> dict[Round, list[int]]:
        """The ranks of which a copy is here, by round."""
        with self._lock:
            found: dict[Round, list[int]] = {}
            for shard in self._shards.values():
                found.setdefault(shard.round, []).append(shard.rank)
            return found

    def retain(self, ranks: Collection[int]) -> None:
        """Remove the files of all ranks but these."""
        with self._lock:
            for rank, slot in [key for key in self._sizes if key[0] not in ranks]:
                self._shards.pop((rank, slot), None)
                self._sizes.pop((rank, slot), None)
                self.path(rank, slot).unlink(missing_ok=True)

    def size_bytes(self) -> int:
        """What all files take."""
        with self._lock:
            return sum(self._sizes.values())


def allocate(path: Path, size: int) -> None:
    """Give a file its size and its memory. Without the memory a later write to its map would be a SIGBUS.

    Raises OSError.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if os.fstat(descriptor).st_size != size:
            try:
                os.ftruncate(descriptor, size)
                os.posix_fallocate(descriptor, 0, size)
            except OSError:
                # A file of this size with holes would look as if it had its memory.
                os.ftruncate(descriptor, 0)
                raise
    finally:
        os.close(descriptor)
