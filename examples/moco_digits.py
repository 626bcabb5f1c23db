"""MoCo on real images: a momentum encoder, and a queue of its keys that the caller keeps.

python examples/moco_digits.py            under a minute
python examples/moco_digits.py --quick    a few epochs, to see that it runs

The encoder, the views and the scores are those of simclr_digits.py. (arXiv 1911.05722)
"""

from __future__ import annotations

import sys

import _digits
import _digits_network
import _digits_torch
import _digits_training
import numpy as np
import torch
from _digits import Array

from ntxent.torch import info_nce

QUEUE = 512  # keys of the last four batches
MOMENTUM = 0.99
TEMPERATURE = 0.2


class MoCo(_digits_torch.Encoder):
    """Queries by an encoder that learns, keys by one that follows it slowly."""

    def __init__(self, kernels: list[Array]) -> None:
        super().__init__(kernels, TEMPERATURE)
        self.slow = _digits_torch.Encoder(kernels, TEMPERATURE)
        self.queue = torch.empty(0, _digits_network.PROJECTED)

    def step(self, views: Array, rate: float) -> float:
        """The loss of queries against their keys, the batch's other keys and the queue."""
        first, second = np.split(views, 2)
        query = self.head(self.pooled(first))
        key = torch.from_numpy(self.slow.projections(second))  # no gradient
        # All other keys count as negatives, of this batch and of the queue. MoCo's paper counts the
        # queue's alone; with ids that is one id for all pairs, and another for the queue:
        # ids=torch.cat([torch.zeros(len(key)), torch.ones(len(self.queue))]).long()
        negatives = self.queue if len(self.queue) else None
        loss = info_nce(query, key, negatives, temperature=self.temperature)
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.follow()
        self.queue = torch.cat([key, self.queue])[:QUEUE]  # the newest keys first
        return loss.item()

    @torch.no_grad()
    def follow(self) -> None:
        """The slow encoder moves a little towards the other."""
        for mine, slow in ((self.body, self.slow.body), (self.head, self.slow.head)):
            for own, kept in zip(mine.parameters(), slow.parameters(), strict=True):
                kept.lerp_(own, 1 - MOMENTUM)


def main() -> None:
    """Score raw pixels and the untrained encoder, train, score again."""
    digits = _digits.load()
    epochs = 6 if "--quick" in sys.argv else 100
    encoder = MoCo(_digits_network.initial_kernels(seed=0))
    scores = {
        "raw pixels": _digits.score(lambda images: images.reshape(len(images), -1), digits),
        "untrained encoder": _digits.score(encoder.features, digits),
    }
    losses = _digits_training.train(encoder, digits.train, epochs, 128, np.random.default_rng(0))
    scores["trained encoder"] = _digits.score(encoder.features, digits)
    print(f"loss of the last ten steps: {np.mean(losses[-10:]):.3f}\n")
    print(_digits.table(scores))


if __name__ == "__main__":
    main()
