"""The generated clicks have the signal that they claim, and the same batches for everybody."""

import numpy as np
import pytest
from clicks import TEST, TRAIN, Clicks, auc


def test_a_batch_follows_from_its_number_alone() -> None:
    forward = [Clicks().batch(number, rows=50) for number in (1, 2, 3)]
    backward = [Clicks().batch(number, rows=50) for number in (3, 2, 1)]
    for one, other in zip(forward, reversed(backward), strict=True):
        assert np.array_equal(one.ids, other.ids) and np.array_equal(one.clicked, other.clicked)
    assert not np.array_equal(forward[0].ids, forward[1].ids)


def test_nobody_is_tested_on_what_was_trained_on() -> None:
    train, test = (Clicks().batch(1, rows=50, split=split) for split in (TRAIN, TEST))
    assert not np.array_equal(train.dense, test.dense)


def test_the_ids_of_the_fields_do_not_overlap() -> None:
    clicks = Clicks()
    ids = clicks.batch(1, rows=20_000).ids
    assert ids.min() == 0 and ids.max() == clicks.ids - 1
    borders = [0, clicks.users, clicks.users + clicks.items, clicks.ids]
    for field in range(3):
        assert borders[field] <= ids[:, field].min() and ids[:, field].max() < borders[field + 1]


def test_the_truth_tells_far_more_than_its_parts() -> None:
    batch = Clicks().batch(1, rows=20_000)
    assert 0.86 < auc(batch.clicked, batch.truth) < 0.90
    assert 0.45 < auc(batch.clicked, np.random.default_rng(0).random(20_000, np.float32)) < 0.55
    for column in range(batch.dense.shape[1]):
        assert auc(batch.clicked, np.abs(batch.dense[:, column])) < 0.6


def test_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    random = np.random.default_rng(3)
    clicked = (random.random(200) < 0.3).astype(np.float32)
    score = random.integers(0, 12, 200).astype(np.float32) + clicked  # many ties
    hits, misses = score[clicked > 0], score[clicked == 0]
    pairs = [(hit > miss) + (hit == miss) / 2 for hit in hits for miss in misses]
    assert auc(clicked, score) == pytest.approx(np.mean(pairs))
    assert auc(clicked, -score) == pytest.approx(1 - np.mean(pairs))


def test_auc_of_misses_alone_is_no_number() -> None:
    with pytest.raises(ValueError, match="of 3 views 0 have clicks"):
        auc(np.zeros(3, np.float32), np.zeros(3, np.float32))
