"""Role `loader`: makes batches of views, on CPU nodes. Needs no torch, and has no state.

A real one would read files and turn their words into ids. What matters is the same: which views are batch 17 depends on
the number 17 alone, never on what was given out before. So a loader that dies is simply started again; nothing is
repeated and nothing is skipped.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from clicks import Clicks
from messages import Answer
from wires import serve


class DataLoader:
    """Answers with batches."""

    def __init__(self, clicks: Clicks) -> None:
        self.clicks = clicks

    def service(self) -> AbstractContextManager[Mapping[str, Answer]]:
        """What may be asked; all connections share it."""
        return nullcontext({"batch": self.batch})

    def batch(self, *, split: int, number: int, rows: int) -> Mapping[str, Any]:
        """The views of a batch; what they were tossed from stays here."""
        batch = self.clicks.batch(number, rows=rows, split=split)
        return {"ids": batch.ids, "dense": batch.dense, "clicked": batch.clicked}


if __name__ == "__main__":
    serve(DataLoader(Clicks()).service)
