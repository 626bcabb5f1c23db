"""What every backend's training shares: what an encoder must do, and the loop that trains it."""

from __future__ import annotations

import math
from typing import Protocol

import _digits
import numpy as np
from _digits import Array
from tqdm import tqdm

PEAK = 3e-3
WARM_UP = 0.1


class Encoder(Protocol):
    """A body whose output the probe sees, and a projection head whose output the loss sees."""

    def features(self, images: Array) -> Array:
        """The body's output, a row for each image."""

    def projections(self, images: Array) -> Array:
        """The head's output, a row for each image."""

    def step(self, views: Array, rate: float) -> float:
        """One step of Adam on the loss of `views`, all first ones first; returns the loss."""


def train(
    encoder: Encoder,
    images: Array,
    epochs: int,
    batch_size: int,
    rng: np.random.Generator,
    quiet: bool = False,
) -> list[float]:
    """Make two views of every image, again in every epoch, and let them find each other."""
    steps = len(images) // batch_size
    losses: list[float] = []
    with tqdm(range(epochs), desc="training", unit="epoch", disable=quiet) as bar:
        for _ in bar:
            order = rng.permutation(len(images))
            for chosen in np.split(order[: steps * batch_size], steps):
                views = two_views(images[chosen], rng)
                rate = learning_rate(len(losses), steps * epochs)
                losses.append(encoder.step(views, rate))
            bar.set_postfix(loss=f"{np.mean(losses[-steps:]):.3f}")
    return losses


def two_views(images: Array, rng: np.random.Generator) -> Array:
    """The first views of all images, then the second ones."""
    return np.concatenate([_digits.augment(images, rng) for _ in range(2)])


def learning_rate(step: int, steps: int) -> float:
    """Up to the peak in a tenth of the steps and down to 0 in the others, along a cosine."""
    done = (step + 0.5) / steps
    height = done / WARM_UP if done < WARM_UP else (1 - done) / (1 - WARM_UP)
    return PEAK * (1 - math.cos(math.pi * height)) / 2


def summary(losses: list[float], epochs: int, batch_size: int) -> str:
    """The losses of the first epoch and of the last, beside what knowing nothing costs."""
    steps = len(losses) // epochs
    return (
        f"loss: {np.mean(losses[:steps]):.3f} in the first epoch, {np.mean(losses[-steps:]):.3f} "
        f"in the last of {epochs}; {chance(batch_size):.3f} if every row were alike"
    )


def chance(batch_size: int) -> float:
    """The loss if every row were alike: all others are as likely."""
    return math.log(2 * batch_size - 1)
