"""The demo's figure: the loss, and one batch's similarities before and after training."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from _digits import Array

mpl.use("Agg")  # draws to a file, with or without a screen
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

POSITIVE = "#00a651"
SHOWN = 10  # images whose two views are shown: one of each class


class Batch(NamedTuple):
    """Two views of some images, the first views first; two images of a class, in order of class."""

    views: Array
    labels: Array
    before: Array
    after: Array


def save(path: Path, losses: Array, chance: float, batch: Batch) -> None:
    """Draw `losses`, a row for each epoch, and the batch; write them to `path`."""
    figure = plt.figure(figsize=(14.5, 5.6), layout="constrained")
    grid = figure.add_gridspec(2, 3, width_ratios=(1, 1.3, 1.3), height_ratios=(2.2, 1))
    draw_loss(figure.add_subplot(grid[0, 0]), losses, chance)
    draw_views(figure.add_subplot(grid[1, 0]), batch.views)
    axes = [figure.add_subplot(grid[:, column]) for column in (1, 2)]
    draw_similarities(axes[0], batch.before, batch.labels, "Before training")
    image = draw_similarities(axes[1], batch.after, batch.labels, "After training")
    figure.colorbar(image, ax=axes, label="cosine similarity", shrink=0.8, pad=0.01)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the version of matplotlib in it, equal pictures are equal files.
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def draw_loss(axes: Axes, losses: Array, chance: float) -> None:
    """Every step in pale, every epoch's mean in full."""
    epochs, steps = losses.shape
    axes.axhline(chance, color="0.4", linestyle=":", label="every row alike: log(2N − 1)")
    time = (np.arange(losses.size) + 0.5) / steps
    axes.plot(time, losses.ravel(), color="tab:blue", alpha=0.35, linewidth=0.8, label="a step")
    axes.plot(np.arange(epochs) + 0.5, losses.mean(1), color="tab:blue", label="mean of an epoch")
    axes.set(title="NT-Xent falls", xlabel="epoch", ylabel="loss (nats)", xlim=(0, epochs))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def draw_views(axes: Axes, views: Array) -> None:
    """Both views of one image of each class, one above the other."""
    pairs = views.reshape(2, -1, *views.shape[1:])[:, :: len(views) // 2 // SHOWN]
    framed = np.pad(pairs, ((0, 0), (0, 0), (1, 0), (1, 0)), constant_values=np.nan)
    side = framed.shape[-1]
    picture = framed.transpose(0, 2, 1, 3).reshape(2 * side, -1)
    colours = mpl.colormaps["gray"].with_extremes(bad="white")
    axes.imshow(picture, cmap=colours, vmin=0, vmax=1)
    axes.set_yticks([side / 2, 3 * side / 2], ["view 1", "view 2"])
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("Two views of unseen digits")


def draw_similarities(axes: Axes, matrix: Array, labels: Array, when: str) -> AxesImage:
    """All views by all views: positive pairs outlined, self pairs grey."""
    rows = len(matrix)
    images = rows // 2
    itself = np.eye(rows, dtype=bool)
    positive = np.roll(itself, images, axis=1)
    colours = mpl.colormaps["RdBu_r"].with_extremes(bad="0.6")
    image = axes.imshow(np.ma.masked_array(matrix, itself), cmap=colours, vmin=-1, vmax=1)
    for row, column in np.argwhere(positive):
        corner = (column - 0.5, row - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=POSITIVE, linewidth=1.5))
    for line in (axes.axhline, axes.axvline):
        line(images - 0.5, color="black", linewidth=0.8)
    pairs, others = matrix[positive].mean(), matrix[~(positive | itself)].mean()
    means = f"mean of positive pairs {pairs:.2f}, of others {others:.2f}".replace("-", "−")
    axes.set_title(f"{when}\n{means}")
    # Two neighbouring rows show one class: its digit stands between them.
    places, digits = np.arange(0, rows, 2) + 0.5, np.tile(labels[::2], 2)
    axes.set_xticks(places, digits)
    axes.set_yticks(places, digits)
    axes.tick_params(length=0)
    sides = "digit: view 1 of every image, then view 2"
    axes.set(xlabel=f"{sides}\n(green: positive pair, grey: self pair)", ylabel=sides)
    return image
