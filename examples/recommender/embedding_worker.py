"""Role `worker`: stands between the trainers and the tables, on CPU nodes. Needs no torch.

For a trainer it fetches a batch from a loader, looks up the rows of the batch's ids on all shards at once, and hands
both over. On the way back it adds up the gradients of ids that occur more than once, and sends each shard its own. So
trainers know nothing of ids and shards, and the traffic of popular ids stays between CPU machines.

It has no state that matters: a restarted one fetches again, from the loader, which ids a batch had.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from clicks import TRAIN
from embedding_table import Ids, Rows, shard_of
from messages import Answer, Peer, Values
from numpy.typing import NDArray
from wires import peers, serve


class TrainerService:
    """The connection of one trainer, with connections of its own to all loaders and shards."""

    def __init__(self, loaders: Sequence[Peer], shards: Sequence[Peer], threads: Executor) -> None:
        self._loaders = loaders
        self._shards = shards
        self._threads = threads
        self._open: dict[int, tuple[Ids, NDArray[np.intp]]] = {}

    def answers(self) -> Mapping[str, Answer]:
        """What may be asked."""
        return {"batch": self.batch, "teach": self.teach}

    def batch(self, *, session: int, split: int, number: int, rows: int) -> Mapping[str, Any]:
        """A batch with `rows` float32 [views, fields, width] in place of its ids."""
        batch = self._load(split, number, rows)
        ids, where = np.unique(batch["ids"], return_inverse=True)
        if split == TRAIN:
            self._open[number] = ids, where
        parts = self._split(ids)
        found = self._ask_shards("lookup", session, [{"ids": ids[part]} for part in parts])
        table = np.empty((len(ids), found[0]["rows"].shape[1]), np.float32)
        for part, answer in zip(parts, found, strict=True):
            table[part] = answer["rows"]
        shape = *batch["ids"].shape, table.shape[1]
        return {"rows": table[where].reshape(shape), "dense": batch["dense"], "clicked": batch["clicked"]}

    def teach(self, *, session: int, number: int, gradients: Rows) -> Mapping[str, Any]:
        """Take the gradients of a batch's rows, float32 [views, fields, width]; answered once all shards have them."""
        if number not in self._open:  # another worker gave out this batch, and died since
            again = self._load(TRAIN, number, len(gradients))["ids"]
            self._open[number] = np.unique(again, return_inverse=True)
        ids, where = self._open.pop(number)
        summed = np.zeros((len(ids), gradients.shape[2]), np.float32)
        np.add.at(summed, where.ravel(), gradients.reshape(-1, gradients.shape[2]))
        questions = [{"ids": ids[part], "gradients": summed[part]} for part in self._split(ids)]
        self._ask_shards("teach", session, questions)
        return {}

    def _split(self, ids: Ids) -> list[NDArray[np.bool_]]:
        """For each shard, which of the ids it keeps."""
        owner = shard_of(ids, len(self._shards))
        return [owner == shard for shard in range(len(self._shards))]

    def _load(self, split: int, number: int, rows: int) -> Values:
        return self._loaders[number % len(self._loaders)].ask("batch", split=split, number=number, rows=rows)

    def _ask_shards(self, op: str, session: int, questions: Sequence[Values]) -> list[Values]:
        def ask(shard: Peer, values: Values) -> Values:
            return shard.ask(op, session=session, **values)

        return list(self._threads.map(ask, self._shards, questions))


@contextmanager
def service() -> Iterator[Mapping[str, Answer]]:
    """A trainer's connection, from its first question to its end."""
    with peers("loader") as loaders, peers("embedding") as shards, ThreadPoolExecutor(len(shards)) as threads:
        yield TrainerService(loaders, shards, threads).answers()


if __name__ == "__main__":
    serve(service)
