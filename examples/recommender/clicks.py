"""Generated clicks with a known truth, so that the best AUC that any model can reach is known too.

Every user and every item has a hidden taste, a few numbers. Whether a user clicks on an item is a coin toss whose odds
are the product of the two tastes, plus what a handful of measured ("dense") features and the place of the advert add.

Batch number 17 is the same on every machine, always: it is drawn from a random stream of its own, (seed, split, 17).
That is why a data loader has no state to lose. A restarted one gives the very batch that is asked for.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

TRAIN, TEST = 1, 2
TEST_BATCHES, TEST_ROWS = 20, 1000
_WORLD = 0
FIELDS = 3
"""User, item, place: the columns of `Batch.ids`."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some views of adverts, one a row."""

    ids: NDArray[np.int64]
    """[rows, FIELDS], each id unique over all fields."""
    dense: NDArray[np.float32]
    """[rows, Clicks.dense]"""
    clicked: NDArray[np.float32]
    """[rows], 0 or 1."""
    truth: NDArray[np.float32]
    """[rows], the log-odds from which `clicked` was tossed. Nobody may train on it."""


@dataclass(frozen=True, kw_only=True)
class Clicks:
    """A small world of users, items and places."""

    seed: int = 0
    users: int = 400
    items: int = 200
    places: int = 10
    taste: int = 3
    """Hidden numbers of a user, and of an item."""
    dense: int = 6

    @property
    def ids(self) -> int:
        """How many different ids there are; they are 0, 1, 2 ..."""
        return self.users + self.items + self.places

    def batch(self, number: int, *, rows: int, split: int = TRAIN) -> Batch:
        """The batch of this number."""
        random = self._random(split, number)
        # Squared, since some users and items are seen far more often than others, as in life.
        user = (self.users * random.random(rows) ** 2).astype(np.int64)
        item = (self.items * random.random(rows) ** 2).astype(np.int64)
        place = random.integers(self.places, size=rows)
        dense = random.standard_normal((rows, self.dense), dtype=np.float32)
        user_taste, item_taste, place_pull, weights = self._hidden
        truth = (user_taste[user] * item_taste[item]).sum(1) + place_pull[place] + dense @ weights - 1.0
        clicked = random.random(rows) < 1 / (1 + np.exp(-truth))
        return Batch(
            ids=np.stack([user, self.users + item, self.users + self.items + place], 1),
            dense=dense,
            clicked=clicked.astype(np.float32),
            truth=truth.astype(np.float32),
        )

    @cached_property
    def _hidden(self) -> tuple[NDArray[np.float64], ...]:
        random = self._random(_WORLD, 0)
        # The product of two tastes has a spread of 2, whatever their length.
        spread = (2.0 / self.taste**0.5) ** 0.5
        return (
            random.normal(0, spread, (self.users, self.taste)),
            random.normal(0, spread, (self.items, self.taste)),
            random.normal(0, 0.5, self.places),
            random.normal(0, 0.4, self.dense),
        )

    def _random(self, split: int, number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, split, number])


def auc(clicked: NDArray[np.float32], score: NDArray[np.float32]) -> float:
    """The chance that a view with a click got a higher score than one without; a tie counts half.

    >>> auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.4, 0.8]))
    0.875
    """
    _, where, count = np.unique(score, return_inverse=True, return_counts=True)
    # Scores of equal size share the middle of the ranks that they take up together.
    rank = (np.cumsum(count) - (count - 1) / 2)[where]
    hits = float(clicked.sum())
    misses = len(clicked) - hits
    if not hits or not misses:
        raise ValueError(f"AUC needs both clicks and misses; of {len(clicked)} views {hits:.0f} have clicks")
    return (float(rank[clicked > 0].sum()) - hits * (hits + 1) / 2) / (hits * misses)
