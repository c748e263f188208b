"""The order of the data depends on the seed and on what was seen, and on nothing else."""

import pytest
import torch
from corpus import Corpus, source_files

TEXT = bytes(range(256)) * 4


def make(seed: int = 0) -> Corpus:
    return Corpus(TEXT, context=16, seed=seed)


def test_an_epoch_shows_every_window_once() -> None:
    corpus = make()
    for epoch in range(2):
        windows = [corpus.window_of(epoch * corpus.windows + place) for place in range(corpus.windows)]
        assert sorted(windows) == list(range(corpus.windows))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {
        tuple(corpus.window_of(epoch * corpus.windows + place) for place in range(corpus.windows))
        for corpus in (make(0), make(1))
        for epoch in range(2)
    }
    assert len(orders) == 4


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6])
def test_a_step_takes_the_same_samples_however_many_ranks_divide_it(world_size: int) -> None:
    corpus = make()
    shares = [
        corpus.batch(seen=24, rank=rank, world_size=world_size, size=12 // world_size) for rank in range(world_size)
    ]
    rows = sorted(tuple(row.tolist()) for inputs, _ in shares for row in inputs)
    whole, _ = corpus.batch(seen=24, rank=0, world_size=1, size=12)
    assert rows == sorted(tuple(row.tolist()) for row in whole)


def test_a_batch_does_not_depend_on_what_was_asked_before() -> None:
    walked, fresh = make(), make()
    for step in range(40):
        batch = walked.batch(seen=step * 8, rank=1, world_size=2, size=4)
    again = fresh.batch(seen=39 * 8, rank=1, world_size=2, size=4)
    assert all(torch.equal(one, other) for one, other in zip(batch, again, strict=True))


def test_targets_are_the_bytes_that_follow() -> None:
    inputs, targets = make().batch(seen=0, rank=0, world_size=1, size=4)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])


def test_the_text_is_the_standard_library() -> None:
    names = [path.name for path in source_files()]
    assert {"argparse.py", "socket.py", "typing.py"} <= set(names)
    assert names == sorted(names)
