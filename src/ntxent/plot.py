"""A picture of a batch: the similarities of all its rows, `from ntxent import plot`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

try:
    import matplotlib.pyplot as plt
except ImportError as error:
    from ntxent._checks.arguments import missing_framework

    name = "plot"
    raise missing_framework(name, "matplotlib") from error

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from ntxent._any_backend import Array, Rows, checked_rows

__all__ = ["similarity"]

EXACT = 512  # rows up to which each has a cell of its own
BINNED = 128  # cells along a side of larger batches, where a cell is a mean
OUTLINED = 64  # cells along a side up to which each mark is a square of its own
VEIL = 0.35  # the opacity over a cell whose pairs all have equal ids
FAINTEST = 0.1  # that over a cell with any
COLORS = "RdBu_r"
# Of different lightness, too, for every kind of color vision; the first two are Okabe and Ito's.
POSITIVE, SELF, SAME_ID = "#009e73", "#e69f00", "#542788"


def similarity(
    *views: Any,
    ids: Any = None,
    normalize: bool = True,
    labels: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the similarities of all rows of a batch, its positive pairs marked.

    Rows and columns are those of the first view, then those of the second, ... Positive pairs are
    green and self pairs, which take no part in the loss, orange; pairs of different images with
    equal `ids`, which are no negatives, are purple.

    Parameters
    ----------
    *views : array of NumPy, PyTorch, JAX or TensorFlow, shape (N, d)
        Two or more views; row i of each comes from image i. float64, float32, float16 or bfloat16,
        all of one shape and dtype, on any device, with or without a gradient.
    ids : array of integers, shape (N,), optional
        Images with equal ids are never negatives of each other. Images in the order of their ids
        make the better picture.
    normalize : bool, default True
        False takes the dot products of the rows as they are.
    labels : sequence of str, one for each row, optional
        Tick labels, the first view's first; by default the axes name the views.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        With the picture, a color bar and a legend.

    Raises
    ------
    TypeError, ValueError
        For views and ids that `nt_xent` refuses.
    ValueError
        For labels that are not one a row.
    ImportError
        On import, where matplotlib is missing.

    Notes
    -----
    Of more than 512 rows the picture has 128 x 128 cells, and each shows the mean over neighboring
    rows of one view and neighboring rows of another: of the positive pairs alone, where it has any.
    The mean of dot products is the dot product of the means, so that no n x n matrix is made: time
    and memory are O(n d).

    References
    ----------
    The colors: M. Okabe and K. Ito, Color Universal Design, 2008.

    Examples
    --------
    >>> import numpy as np
    >>> from ntxent import plot
    >>> z1 = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> z2 = np.array([[2.0, 0.1], [0.2, 3.0]])
    >>> axes = plot.similarity(z1, z2, labels=["A1", "B1", "A2", "B2"])
    >>> axes.figure.savefig("similarity.png")  # doctest: +SKIP
    """
    rows = checked_rows(views, ids, normalize)
    count = len(rows.z)
    if labels is not None and len(labels) != count:
        msg = (
            f"labels must be {count}, one for each row, the first view's first; got {len(labels)}. "
            "Leave them out (None) to name the views alone."
        )
        raise ValueError(msg)
    if ax is None:
        _, ax = plt.subplots(layout="constrained")
    cells = binned(rows, None if ids is None else rows.ids[: rows.images])
    means = cells.means
    largest = np.max(np.abs(means), where=np.isfinite(means), initial=0)
    limit = 1.0 if normalize else float(largest) or 1.0
    extent = (-0.5, count - 0.5, count - 0.5, -0.5)  # in rows, whatever the cells
    image = ax.imshow(means, cmap=COLORS, vmin=-limit, vmax=limit, extent=extent)
    name = "cosine similarity" if normalize else "dot product"
    ax.figure.colorbar(image, cax=ax.inset_axes((1.03, 0, 0.04, 1)), label=name)
    draw_marks = outline if len(means) <= OUTLINED else line
    draw_marks(ax, cells, count)
    name_rows(ax, len(views), count, labels)
    name_marks(ax, same=bool(cells.same.any()))
    return ax


class Cells(NamedTuple):
    """The c x c cells of the picture, c / V along a side for each view."""

    means: Array  # (c, c), of the similarities
    same: Array  # (c, c), the share of pairs of different images with equal ids
    views: int


def binned(rows: Rows, ids: Array | None) -> Cells:
    """A cell for each pair of rows, or for as many neighbors together as make the cells fit."""
    views = len(rows.z) // rows.images
    bins = rows.images if len(rows.z) <= EXACT else max(1, BINNED // views)
    starts = np.arange(bins) * rows.images // bins
    sizes = np.diff(starts, append=rows.images)
    z = rows.z.reshape(views, rows.images, -1)
    side, diagonal = views * bins, np.arange(bins)
    with np.errstate(all="ignore"):  # NaN and infinity are empty cells
        centers = np.add.reduceat(z, starts, axis=1, dtype=np.float64) / sizes[:, None]
        means = np.einsum("uad,vbd->uavb", centers, centers, optimize=True)
        of_images = np.einsum("uid,vid->uvi", z, z, dtype=np.float64)
        of_bins = np.add.reduceat(of_images, starts, axis=2) / sizes
    means[:, diagonal, :, diagonal] = of_bins.transpose(2, 0, 1)
    same = np.zeros((bins, bins)) if ids is None else shared(ids, starts) / np.outer(sizes, sizes)
    return Cells(means.reshape(side, side), np.tile(same, (views, views)), views)


def shared(ids: Array, starts: Array) -> Array:
    """How many pairs of different images, one of each of two bins, have equal ids."""
    _, kinds, members = np.unique(ids, return_inverse=True, return_counts=True)
    several = members > 1  # of the others there is no pair
    column = np.cumsum(several) - 1
    bins = np.searchsorted(starts, np.arange(len(ids)), side="right") - 1
    chosen = several[kinds]
    counts = np.zeros((len(starts), int(several.sum())))
    np.add.at(counts, (bins[chosen], column[kinds[chosen]]), 1)
    pairs = counts @ counts.T
    pairs[np.diag_indices(len(starts))] -= counts.sum(1)  # each image with itself
    return pairs


def outline(ax: Axes, cells: Cells, count: int) -> None:
    """A square for each mark."""
    side = len(cells.means)
    row, column = np.indices((side, side))
    own = row == column
    partner = (row - column) % (side // cells.views) == 0
    for where, color in ((cells.same > 0, SAME_ID), (partner & ~own, POSITIVE)):
        draw_squares(ax, where, count / side, 0.08, edgecolor=color, facecolor="none")
    draw_squares(ax, own, count / side, 0, facecolor=SELF)


def draw_squares(ax: Axes, where: Array, size: float, inset: float, **style: Any) -> None:
    """One in each of these cells."""
    low, high = inset, 1 - inset
    square = np.array([(low, low), (high, low), (high, high), (low, high)])
    corners = np.argwhere(where)[:, None, ::-1]  # x is the column
    width = min(3, 50 / len(where))
    halo = withStroke(linewidth=1.7 * width, foreground="white")  # for dark cells
    found = PolyCollection((corners + square) * size - 0.5, linewidth=width, **style)
    found.set_path_effects([halo] if style["facecolor"] == "none" else [])
    ax.add_collection(found)


def line(ax: Axes, cells: Cells, count: int) -> None:
    """The diagonals: self pairs below a line, positive pairs between two; a veil of equal ids."""
    veil = np.empty((*cells.same.shape, 4))
    veil[..., :3] = to_rgb(SAME_ID)
    veil[..., 3] = np.where(cells.same > 0, np.maximum(VEIL * cells.same, FAINTEST), 0)
    ax.imshow(veil, extent=ax.images[0].get_extent())
    images, off = count // cells.views, count / 50
    for down, across in np.ndindex(cells.views, cells.views):
        left, top = across * images - 0.5, down * images - 0.5
        right, bottom = left + images, top + images
        if down == across:
            ax.plot((left, right), (top, bottom), color=SELF)
            continue
        for x, y in ((off, 0), (0, off)):
            ax.plot((left + x, right - y), (top + y, bottom - x), color=POSITIVE, linewidth=1)


def name_rows(ax: Axes, views: int, count: int, labels: Sequence[str] | None) -> None:
    """Which rows are whose, above and at the left; a line between views."""
    edges = np.linspace(0, count, views + 1) - 0.5
    for edge in edges[1:-1]:
        ax.axhline(edge, color="black", linewidth=0.8)
        ax.axvline(edge, color="black", linewidth=0.8)
    places: Array = np.arange(count)
    if labels is None:
        places = (edges[1:] + edges[:-1]) / 2
        labels = [f"view {number}" for number in range(1, views + 1)]
    ax.set_xticks(places, labels)
    ax.set_yticks(places, labels)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5))


def name_marks(ax: Axes, same: bool) -> None:
    """A legend, below."""
    marks = [
        Patch(facecolor="none", edgecolor=POSITIVE, linewidth=2, label="positive pair"),
        Patch(facecolor=SELF, label="self pair"),
        Patch(facecolor="none", edgecolor=SAME_ID, linewidth=2, label="equal ids"),
    ]
    handles = marks if same else marks[:2]
    ax.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=3, frameon=False
    )
