"""What the model reads, and in which order: a pure function of the seed and of how many samples were seen before.

Nothing about the order has to be saved but one number. A run that was stopped therefore goes on with exactly the
samples that it had not seen yet, also when it goes on with another number of ranks.
"""

import hashlib
import sysconfig
from pathlib import Path

import torch
from torch import Tensor


def source_files() -> tuple[Path, ...]:
    """The Python standard library's own modules, by name. They are real text, and on every machine that runs this."""
    return tuple(sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")))


class Corpus:
    """Text as bytes, cut into windows of `context` bytes that do not overlap.

    `identity` tells two corpora apart: nodes with different patch releases of Python read different text.
    """

    def __init__(self, text: bytes, *, context: int, seed: int) -> None:
        self.identity = hashlib.sha256(text).hexdigest()[:16]
        self.context = context
        self.seed = seed
        self.windows = (len(text) - 1) // context
        self._bytes = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def window_of(self, sample: int) -> int:
        """Which window is the `sample`-th one that training sees; every epoch has an order of its own."""
        epoch, place = divmod(sample, self.windows)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._order = torch.randperm(self.windows, generator=generator)
            self._epoch = epoch
        return int(self._order[place])

    def batch(self, *, seen: int, rank: int, world_size: int, size: int) -> tuple[Tensor, Tensor]:
        """This rank's share of the step that follows `seen` samples: inputs and targets, int64 [size, context].

        Neighbouring samples go to different ranks, so that the step as a whole takes the same samples however many
        ranks divide it.
        """
        rows = []
        for place in range(size):
            start = self.window_of(seen + place * world_size + rank) * self.context
            rows.append(self._bytes[start : start + self.context + 1])
        window = torch.stack(rows).long()
        return window[:, :-1].contiguous(), window[:, 1:].contiguous()


def load(*, context: int, seed: int) -> Corpus:
    """The standard library as a corpus."""
    return Corpus(b"\n".join(path.read_bytes() for path in source_files()), context=context, seed=seed)
