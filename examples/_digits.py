"""What every backend's demo shares: the images, the augmentation, the evaluation and the figure.

The images are scikit-learn's 1797 scans of handwritten digits, 8 x 8, which ship with the package.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle

Array = np.ndarray[Any, Any]
LABELS_PER_CLASS = 10
DRAWS = 10
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
    noise = 0.1 * rng.standard_normal(images.shape, dtype=np.float32)
    found: Array = resampled(images, matrix, shift) * gain + noise
    return found


def resampled(images: Array, matrix: Array, shift: Array) -> Array:
    """Each image where `matrix @ (x, y) - shift` of its pixels falls, bilinear, dark outside."""
    middle = (SIDE - 1) / 2
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32) - middle
    places = matrix @ np.stack([x.ravel(), y.ravel()]) - shift + middle + 1
    padded = np.pad(images, ((0, 0), (1, 2), (1, 2)))
    places = np.clip(places, 0, SIDE + 1)
    corner = np.floor(places).astype(np.int64)
    right, below = np.moveaxis(places - corner.astype(np.float32), 1, 0)
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
    neighbours: list[float]


def score(features: Callable[[Array], Array], digits: Digits) -> Score:
    """Linear probe and nearest neighbours from 10 labels a class, on the test images."""
    train, test = features(digits.train), features(digits.test)
    mean, spread = train.mean(0), train.std()
    train, test = (train - mean) / spread, (test - mean) / spread
    found = Score([], [])
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        classes = range(10)
        chosen = np.concatenate(
            [
                rng.choice(np.flatnonzero(digits.train_labels == c), LABELS_PER_CLASS, False)
                for c in classes
            ]
        )
        known = train[chosen], digits.train_labels[chosen]
        for scores, model in (
            (found.probe, LogisticRegression(max_iter=2000)),
            (found.neighbours, KNeighborsClassifier(1, metric="cosine")),
        ):
            scores.append(100 * model.fit(*known).score(test, digits.test_labels))
    return found


def table(scores: dict[str, Score]) -> str:
    """Mean and standard deviation over the draws of labels."""
    lines = [
        f"{LABELS_PER_CLASS} labels a class, {DRAWS} draws     linear probe   nearest neighbour",
    ]
    for name, both in scores.items():
        cells = [f"{np.mean(x):6.1f} ± {np.std(x):3.1f} %" for x in both]
        lines.append(f"{name:<28}   {cells[0]:>12}   {cells[1]:>14}")
    return "\n".join(lines)


def similarities(rows: Array) -> Array:
    """The cosine of every two rows."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    found: Array = unit @ unit.T
    return found


def save_figure(path: Path, losses: list[float], before: Array, after: Array) -> None:
    """The loss, and one batch's similarities before and after: [view 1; view 2] by itself."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
    axes[0].plot(losses, color="tab:blue", linewidth=0.8)
    axes[0].set(title="NT-Xent while training", xlabel="step", ylabel="loss", ylim=(0, None))
    axes[0].grid(alpha=0.3)
    for axis, matrix, when in zip(axes[1:], (before, after), ("before", "after"), strict=True):
        rows = len(matrix)
        shown = np.ma.masked_array(matrix, np.eye(rows, dtype=bool))
        colours = mpl.colormaps["RdBu_r"].with_extremes(bad="0.6")
        image = axis.imshow(shown, cmap=colours, vmin=-1, vmax=1)
        for row in range(rows):
            column = (row + rows // 2) % rows
            box = Rectangle(
                (column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="limegreen", linewidth=1.6
            )
            axis.add_patch(box)
        ticks = [rows / 4 - 0.5, 3 * rows / 4 - 0.5]
        axis.set(title=f"Similarities {when} training", xticks=ticks, yticks=ticks)
        axis.set_xticklabels(["view 1", "view 2"])
        axis.set_yticklabels(["view 1", "view 2"], rotation=90, va="center")
        axis.tick_params(length=0)
    figure.colorbar(image, ax=axes[1:], label="cosine similarity", shrink=0.9)
    figure.supxlabel("positive pairs outlined in green, self pairs grey", fontsize="medium")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
