"""The same model, trained plainly: one process, one table, one step after the other.

    python examples/recommender/baseline.py --steps 600 --rows 512

It trains on as many views as the hybrid trainer's ranks do together, and prints the AUC that it reaches beside the best
one that can be had: that of the odds with which the clicks were tossed.
"""

import argparse
import json
import sys
from collections.abc import Sequence

import numpy as np
import torch
from clicks import FIELDS, TEST, TEST_BATCHES, TEST_ROWS, Clicks, auc
from dense_net import DenseNet
from torch.nn import functional as F


def baseline(*, steps: int, rows: int, width: int = 8, learning_rate: float = 5e-3) -> dict[str, float]:
    """The AUC of a plain training run, and the best possible one."""
    torch.set_num_threads(1)  # the matrices are small: more threads would only wait for each other
    torch.manual_seed(0)
    clicks = Clicks()
    table = torch.nn.Embedding(clicks.ids, width)
    torch.nn.init.uniform_(table.weight, -0.2, 0.2)
    net = DenseNet(fields=FIELDS, width=width, dense=clicks.dense)
    optimizers = (torch.optim.Adagrad(table.parameters(), lr=0.1), torch.optim.Adam(net.parameters(), lr=learning_rate))
    for step in range(steps):
        batch = clicks.batch(step, rows=rows)
        logits = net(table(torch.from_numpy(batch.ids)), torch.from_numpy(batch.dense))
        loss = F.binary_cross_entropy_with_logits(logits, torch.from_numpy(batch.clicked))
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()

    test = [clicks.batch(number, rows=TEST_ROWS, split=TEST) for number in range(TEST_BATCHES)]
    with torch.no_grad():
        score = [net(table(torch.from_numpy(batch.ids)), torch.from_numpy(batch.dense)).numpy() for batch in test]
    clicked = np.concatenate([batch.clicked for batch in test])
    truth = np.concatenate([batch.truth for batch in test])
    return {"auc": auc(clicked, np.concatenate(score)), "best": auc(clicked, truth)}


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rows", type=int, default=512, help="views per step")
    args = parser.parse_args(argv)
    print(json.dumps(baseline(steps=args.steps, rows=args.rows)))


if __name__ == "__main__":
    main(sys.argv[1:])
