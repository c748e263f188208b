"""Role `embedding`: keeps one shard of the embedding table in memory, on high-memory nodes. Needs no torch.

Gradients are applied when they come, from whichever worker, with no barrier anywhere: that is the asynchronous half of
the training. It keeps no log either. After a death, the trainers tell all servers to go back to the same snapshot as
they did themselves, so that the two halves of the model always belong together.

Each start of the trainers has a higher `session` number. What comes from an earlier session is refused, such as the
last gradients of trainers that are dead by now; and a server that was restarted refuses everything until it is told
what to restore.
"""

import argparse
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import snapshots
from embedding_table import EmbeddingTable, Ids, Rows
from messages import Answer, Refused
from wires import serve

from trainmaster import registry
from trainmaster import step as report_step


class EmbeddingServer:
    """One shard and the session that it serves. Its questions come from many threads."""

    def __init__(self, table: EmbeddingTable, *, index: int, size: int, folder: Path) -> None:
        self.table = table
        self._session = -1
        self._shard = (index, size)
        self._folder = folder
        self._lock = threading.Lock()

    def service(self) -> AbstractContextManager[Mapping[str, Answer]]:
        """What may be asked; all connections share it."""
        return nullcontext({"restore": self.restore, "lookup": self.lookup, "teach": self.teach, "save": self.save})

    def restore(self, *, session: int, step: int) -> Mapping[str, Any]:
        """Begin a session with the snapshot of `step`; step 0 is the beginning, when nothing had been taught."""
        with self._lock:
            if session < self._session:
                raise Refused(f"session {session} is over, {self._session} has begun")
            if step == 0:
                self.table.clear()
            else:
                self.table.load(snapshots.shard_file(self._folder, step, *self._shard))
            self._session = session
            print(f"session {session} begins at step {step} with {len(self.table)} rows", flush=True)
            return {}

    def lookup(self, *, session: int, ids: Ids) -> Mapping[str, Any]:
        """The rows as they are at this moment."""
        with self._lock:
            self._check(session)
            return {"rows": self.table.lookup(ids)}

    def teach(self, *, session: int, ids: Ids, gradients: Rows) -> Mapping[str, Any]:
        """Apply gradients; once it is answered, every later lookup sees them."""
        with self._lock:
            self._check(session)
            self.table.teach(ids, gradients)
            return {}

    def save(self, *, session: int, step: int) -> Mapping[str, Any]:
        """Write this shard's part of the snapshot of `step`; once it is answered, it is on the disk."""
        with self._lock:
            self._check(session)
            self.table.save(snapshots.shard_file(self._folder, step, *self._shard))
            report_step(step)  # what a server has to show for itself, should it die again and again
            return {"rows": len(self.table)}

    def _check(self, session: int) -> None:
        if session != self._session:
            raise Refused(f"this shard is in session {self._session}, not {session}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where snapshots lie, seen by all nodes")
    parser.add_argument("--width", type=int, default=8, help="numbers in a row")
    args = parser.parse_args()
    me = registry.me()
    serve(EmbeddingServer(EmbeddingTable(width=args.width), index=me.index, size=me.size, folder=args.folder).service)
