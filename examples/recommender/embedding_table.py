"""One shard of the embedding table: a row of numbers for each id that it was ever taught about."""

import os
import secrets
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Rows = NDArray[np.float32]


def mix(ids: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A number that looks random, the same for the same id for ever (splitmix64)."""
    mixed = ids + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def shard_of(ids: Ids, shards: int) -> NDArray[np.int64]:
    """Which shard keeps which id. Mixed first, so that neighbouring ids do not follow each other around."""
    return (mix(ids.astype(np.uint64)) % np.uint64(shards)).astype(np.int64)


class EmbeddingTable:
    """Rows by id, taught with Adagrad: the more a number has moved already, the smaller its next move.

    A row costs memory once it is taught. Until then its values follow from the id alone, so that it does not matter
    who asks first, or after which restart.
    """

    def __init__(self, *, width: int, learning_rate: float = 0.1, spread: float = 0.2) -> None:
        self.width = width
        self.learning_rate = learning_rate
        self.spread = spread
        self._place: dict[int, int] = {}
        self._rows = np.zeros((0, width), np.float32)
        self._squares = np.zeros((0, width), np.float32)

    def __len__(self) -> int:
        return len(self._place)

    def lookup(self, ids: Ids) -> Rows:
        """The rows of these ids, float32 [ids, width]."""
        places = np.array([self._place.get(i, -1) for i in ids.tolist()], np.int64)
        rows = self._fresh(ids)
        rows[places >= 0] = self._rows[places[places >= 0]]
        return rows

    def teach(self, ids: Ids, gradients: Rows) -> None:
        """Move the rows of these ids, all different, against their gradients float32 [ids, width]."""
        new = np.array([i for i in ids.tolist() if i not in self._place], np.int64)
        self._add(new)
        places = np.array([self._place[i] for i in ids.tolist()], np.int64)
        self._squares[places] += gradients**2
        self._rows[places] -= self.learning_rate * gradients / (np.sqrt(self._squares[places]) + 1e-10)

    def save(self, path: Path) -> None:
        """Write everything to a file that is either whole or not there."""
        path.parent.mkdir(parents=True, exist_ok=True)
        writing = path.with_name(f"{path.name}.writing-{secrets.token_hex(4)}")
        count = len(self._place)
        ids = np.fromiter(self._place, np.int64, count)  # a dict keeps the order in which rows were added
        with writing.open("wb") as stream:
            np.savez(stream, ids=ids, rows=self._rows[:count], squares=self._squares[:count])
            stream.flush()
            os.fsync(stream.fileno())
        writing.replace(path)

    def load(self, path: Path) -> None:
        """Become what was saved; everything since is forgotten."""
        with np.load(path) as saved:
            self._place = {i: place for place, i in enumerate(saved["ids"].tolist())}
            self._rows, self._squares = saved["rows"], saved["squares"]

    def clear(self) -> None:
        """Become as new."""
        self._place = {}

    def _add(self, ids: Ids) -> None:
        first, needed = len(self._place), len(self._place) + len(ids)
        if needed > len(self._rows):
            room = np.zeros((max(needed, 2 * len(self._rows)) - len(self._rows), self.width), np.float32)
            self._rows = np.concatenate([self._rows, room])
            self._squares = np.concatenate([self._squares, room])
        self._rows[first:needed] = self._fresh(ids)
        self._squares[first:needed] = 0
        self._place.update(zip(ids.tolist(), range(first, needed), strict=True))

    def _fresh(self, ids: Ids) -> Rows:
        columns = np.arange(self.width, dtype=np.uint64)
        noise = mix(mix(ids.astype(np.uint64))[:, None] + columns) >> np.uint64(40)  # 24 bits: what a float32 holds
        return ((noise.astype(np.float32) / 2**23 - 1) * self.spread).astype(np.float32)
