"""The dense half of the model: from the rows of a view's ids and its dense features to the log-odds of a click."""

import torch
from torch import Tensor, nn


class DenseNet(nn.Module):
    """As in DLRM: all pairs of vectors are multiplied, and a small network reads the products.

    The vectors are one row of the embedding table per id, and one that is computed from the dense features.
    """

    pairs: Tensor

    def __init__(self, *, fields: int, width: int, dense: int, hidden: int = 32) -> None:
        super().__init__()
        vectors = fields + 1
        pairs = vectors * (vectors - 1) // 2
        self.bottom = nn.Sequential(nn.Linear(dense, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.top = nn.Sequential(nn.Linear(pairs + vectors * width, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.register_buffer("pairs", torch.triu_indices(vectors, vectors, offset=1), persistent=False)

    def forward(self, rows: Tensor, dense: Tensor) -> Tensor:
        """`rows` float32 [batch, fields, width], `dense` float32 [batch, dense] -> log-odds float32 [batch]."""
        vectors = torch.cat([rows, self.bottom(dense)[:, None]], dim=1)
        products = (vectors @ vectors.mT)[:, self.pairs[0], self.pairs[1]]
        odds: Tensor = self.top(torch.cat([products, vectors.flatten(1)], dim=1))
        return odds.squeeze(1)
