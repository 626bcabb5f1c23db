"""What every backend's demo shares: the images, the augmentation and the evaluation.

The images are scikit-learn's 1797 scans of handwritten digits, 8 x 8, which ship with the package.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

Array = np.ndarray[Any, Any]
LABELS_PER_CLASS = 10
DRAWS = 10
CLASSES = 10
SIDE = 8


class Digits(NamedTuple):
    """Images in [0, 1] and labels; the test part is seen by neither training nor label draws."""

    train: Array
    train_labels: Array
    test: Array
    test_labels: Array


def load() -> Digits:
    """Three quarters to train on, a quarter to test on, classes in equal shares."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, SIDE, SIDE)
    train, test, train_labels, test_labels = train_test_split(
        images, labels, test_size=0.25, stratify=labels, random_state=0
    )
    return Digits(train, train_labels, test, test_labels)


def augment(images: Array, rng: np.random.Generator) -> Array:
    """Another view of each image: moved, turned, stretched, slanted, dimmed and noisy.

    No flips and no crops: a mirrored 2 or half an 8 is another digit, or none.
    """
    count = len(images)

    def uniform(most: float) -> Array:
        return rng.uniform(-most, most, count).astype(np.float32)

    angle, slant = np.deg2rad(uniform(15)), uniform(0.2)
    size, stretch = np.exp(uniform(0.2)), np.exp(uniform(0.2))
    across, down = size * stretch, size / stretch
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.empty((count, 2, 2), np.float32)
    matrix[:, 0, 0], matrix[:, 0, 1] = cos * across, cos * across * slant - sin * down
    matrix[:, 1, 0], matrix[:, 1, 1] = sin * across, sin * across * slant + cos * down
    shift = np.stack([uniform(1), uniform(1)], 1)[:, :, None]
    gain = np.exp(uniform(0.3))[:, None, None]
    noise = 0.05 * rng.standard_normal(images.shape, dtype=np.float32)
    found: Array = resampled(images, matrix, shift) * gain + noise
    return found


def resampled(images: Array, matrix: Array, shift: Array) -> Array:
    """Each image where `matrix @ (x, y) - shift` of its pixels falls, bilinear, dark outside."""
    middle = (SIDE - 1) / 2
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32) - middle
    places = matrix @ np.stack([x.ravel(), y.ravel()]) - shift + middle + 1
    padded = np.pad(images, ((0, 0), (1, 2), (1, 2)))
    places = np.clip(places, 0, SIDE + 1)
    floor = np.floor(places)
    right, below = np.moveaxis(places - floor, 1, 0)
    corner = floor.astype(np.int64)  # kept out of the weights: with it they would be float64
    width = padded.shape[2]
    first = np.arange(len(images))[:, None] * width**2 + corner[:, 1] * width + corner[:, 0]
    pixel = padded.ravel()
    upper = pixel[first] * (1 - right) + pixel[first + 1] * right
    lower = pixel[first + width] * (1 - right) + pixel[first + width + 1] * right
    found: Array = (upper * (1 - below) + lower * below).reshape(images.shape)
    return found


class Score(NamedTuple):
    """Accuracies in percent, one for each draw of labels."""

    probe: list[float]
    neighbour: list[float]


def score(features: Callable[[Array], Array], digits: Digits) -> Score:
    """Linear probe and nearest neighbour from 10 labels a class, on the test images."""
    train, test = features(digits.train), features(digits.test)
    # One scale for all features: pixels at the border hardly vary, and a scale each would blow
    # up their noise and make raw pixels look worse than they are.
    mean, spread = train.mean(0), train.std()
    train, test = (train - mean) / spread, (test - mean) / spread
    found = Score([], [])
    for draw in range(DRAWS):
        chosen = label_draw(digits.train_labels, np.random.default_rng(draw))
        known = train[chosen], digits.train_labels[chosen]
        for accuracies, model in (
            (found.probe, LogisticRegression(max_iter=2000)),
            # Of 1, 3 and 5 neighbours one was the best for raw pixels and both encoders alike.
            (found.neighbour, KNeighborsClassifier(1)),
        ):
            accuracies.append(100 * model.fit(*known).score(test, digits.test_labels))
    return found


def label_draw(labels: Array, rng: np.random.Generator) -> Array:
    """The indices of 10 images of each class."""
    classes = [np.flatnonzero(labels == label) for label in range(CLASSES)]
    return np.concatenate([rng.choice(own, LABELS_PER_CLASS, replace=False) for own in classes])


def table(scores: dict[str, Score]) -> str:
    """Mean and standard deviation over the draws of labels."""
    title = (
        f"Test accuracy from {LABELS_PER_CLASS} labels a class, in %: "
        f"mean ± standard deviation over {DRAWS} draws of the labels"
    )
    lines = [title, "", f"{'':<20}{'linear probe':>16}{'nearest neighbour':>21}"]
    for name, both in scores.items():
        probe, neighbour = (f"{np.mean(x):.1f} ± {np.std(x):.1f}" for x in both)
        lines.append(f"{name:<20}{probe:>16}{neighbour:>21}")
    return "\n".join(lines)


def display_batch(digits: Digits) -> tuple[Array, Array]:
    """Two test images of each class and their labels, in order of class: for the figure alone."""
    order = np.argsort(digits.test_labels, kind="stable")
    firsts = np.searchsorted(digits.test_labels[order], range(CLASSES))
    chosen = order[(firsts[:, None] + np.arange(2)).ravel()]
    return digits.test[chosen], digits.test_labels[chosen]


def similarities(rows: Array) -> Array:
    """The cosine of every two rows."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    found: Array = unit @ unit.T
    return found
