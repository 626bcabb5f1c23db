"""Supervised contrastive learning on real images, then a linear probe on the frozen encoder.

python examples/sup_con_digits.py            under a minute
python examples/sup_con_digits.py --quick    a few epochs, to see that it runs

Rows with one label must find each other: both views of each image, and all images of its class. The
encoder, the views and the scores are those of simclr_digits.py. (arXiv 2004.11362)
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

from ntxent.torch import sup_con

BATCH = 128
TEMPERATURE = 0.2


class SupCon(_digits_torch.Encoder):
    """The same encoder; its loss is told the labels of the images."""

    def learn(self, views: Array, labels: Array, rate: float) -> float:
        """One step on two views of each image."""
        rows = self.head(self.pooled(views))
        loss = sup_con(rows, torch.from_numpy(labels).repeat(2), temperature=self.temperature)
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def train(encoder: SupCon, digits: _digits.Digits, epochs: int) -> list[float]:
    """Two views of every image of a batch, again in every epoch."""
    rng, losses = np.random.default_rng(0), []
    steps = len(digits.train) // BATCH
    for _ in range(epochs):
        order = rng.permutation(len(digits.train))
        for chosen in np.split(order[: steps * BATCH], steps):
            views = _digits_training.two_views(digits.train[chosen], rng)
            rate = _digits_training.learning_rate(len(losses), steps * epochs)
            losses.append(encoder.learn(views, digits.train_labels[chosen], rate))
    return losses


def main() -> None:
    """Score raw pixels and the untrained encoder, train, score again."""
    digits = _digits.load()
    encoder = SupCon(_digits_network.initial_kernels(seed=0), TEMPERATURE)
    scores = {
        "raw pixels": _digits.score(lambda images: images.reshape(len(images), -1), digits),
        "untrained encoder": _digits.score(encoder.features, digits),
    }
    losses = train(encoder, digits, epochs=6 if "--quick" in sys.argv else 50)
    scores["trained encoder"] = _digits.score(encoder.features, digits)
    print(f"loss: {losses[0]:.3f} in the first step, {np.mean(losses[-10:]):.3f} in the last ten")
    # The table's title counts the labels of the probe alone.
    print(f"its training saw the labels of all {len(digits.train)} images; the other rows' none\n")
    print(_digits.table(scores))


if __name__ == "__main__":
    main()
