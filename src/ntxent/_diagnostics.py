"""What to watch while an encoder trains, without the matrix of similarities."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntxent._any_backend import Array, Rows, checked_rows, to_numpy
from ntxent._closed_form import row_stage
from ntxent._spec import TEMPERATURE, Options
from ntxent.numpy._operations.backend import OPS
from ntxent.numpy._pairs.tiled import Pairs

NONE = -800.0  # the log of no weight: its exp is 0 in every dtype, and so is their product


@dataclass(frozen=True)
class Diagnostics:
    """What `diagnostics` found; `vars()` makes a dictionary of it, for a logger.

    Attributes
    ----------
    loss : float
        `nt_xent` of these views, with this temperature, these ids and `normalize`.
    top1 : float
        The share of positives more similar to their row than all of its negatives, 0 to 1.
    top5 : float
        The share of positives among the five most similar of itself and the negatives, 0 to 1.
    alignment : float
        The mean squared distance of positive pairs, 0 to 4 for rows of unit length.
    uniformity : float
        The logarithm of the mean of exp(-2 squared distance) of negatives, -8 to 0 for rows of unit
        length: 0 if all are alike, about -4 if they are spread evenly over many dimensions.
    effective_negatives : float
        How many negatives share in the loss of a row: 1 if the hardest is alone, up to all of them.
    positive_similarity : float
        The mean similarity of positive pairs.
    negative_similarity : float
        The mean similarity of negatives.
    rows : int
        The number of rows, V N.
    negatives : float
        The number of negatives of a row; their mean where `ids` make it differ.
    """

    loss: float
    top1: float
    top5: float
    alignment: float
    uniformity: float
    effective_negatives: float
    positive_similarity: float
    negative_similarity: float
    rows: int
    negatives: float


def diagnostics(
    *views: Any,
    temperature: Any = TEMPERATURE,
    ids: Any = None,
    normalize: bool = True,
) -> Diagnostics:
    r"""Say how well positives are found, how rows are spread, and which negatives count.

    For arrays of any backend, computed by NumPy on the CPU without a gradient. The n x n matrix of
    similarities is never held in memory.

    Parameters
    ----------
    *views : array of NumPy, PyTorch, JAX or TensorFlow, shape (N, d)
        Two or more views; row i of each comes from image i. float64, float32, float16 or bfloat16,
        all of one shape and dtype, on any device, with or without a gradient.
    temperature : float or array of one element, default 0.1
        The divisor of the similarities, that of the loss. Loss and effective negatives depend on
        it, the rest does not.
    ids : array of integers, shape (N,), optional
        Images with equal ids are never negatives of each other, here as in the loss.
    normalize : bool, default True
        False takes the dot products of the rows as they are, and their distances.

    Returns
    -------
    Diagnostics
        Python floats, computed in float64 for float64 views and otherwise from float32 products.
        NaN or infinity in a view gives NaN in the means over it. A NaN counts as more similar than
        any positive: one bad row makes `top1` 0.
        In a batch without negatives (one image, or ids that are all equal) every positive is found,
        the effective number of negatives is 0, and what is a mean over negatives is NaN.

    Raises
    ------
    TypeError
        For views and ids that aren't arrays, for dtypes that aren't served, or differ.
    ValueError
        For fewer than two views, shapes that aren't (N, d) or differ, empty batches, a temperature
        that isn't positive and finite, and ids of the wrong shape.

    Notes
    -----
    With z the n = V N normalised rows, j a positive of row i and N(i) the rows of other images (of
    other ids), :math:`w_{ik}` the softmax of :math:`z_i \cdot z_k / \tau` over N(i):

    - top-m: the share of pairs (i, j) such that fewer than m of N(i) are at least as similar to i
      as j is. Equal similarities count against the positive, so that an encoder which makes all
      rows alike finds nothing; similarities are equal within :math:`d` epsilons, their rounding.
      With more than two views a row's other positives don't compete.
    - alignment: the mean of :math:`\lVert z_i - z_j \rVert^2` (2005.10242, exponent 2).
    - uniformity: :math:`\log` of the mean of :math:`\exp(-2 \lVert z_i - z_k \rVert^2)` over all i
      and k in N(i) (2005.10242, t = 2). The paper takes the two as independent draws of images:
      pairs of one view there, pairs of different images from all views here.
    - effective negatives: the mean over rows of :math:`\exp(-\sum_k w_{ik} \log w_{ik})`, the
      perplexity of the weights with which negatives push row i away.

    Time: two passes over half of the n^2 d products. Memory: O(n d) and a few tiles of at most
    512 x 512. A process sees its own rows alone.

    References
    ----------
    T. Wang and P. Isola, Understanding contrastive representation learning through alignment and
    uniformity on the hypersphere, arXiv 2005.10242, section 4.1.

    Examples
    --------
    >>> import numpy as np
    >>> import ntxent
    >>> z1 = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> z2 = np.array([[2.0, 0.0], [0.0, 3.0]])
    >>> found = ntxent.diagnostics(z1, z2, temperature=0.5)
    >>> found.top1, found.alignment, found.uniformity, found.effective_negatives
    (1.0, 0.0, -4.0, 2.0)
    """
    temperature = to_numpy(temperature)
    rows = checked_rows(views, ids, normalize, temperature)
    with np.errstate(all="ignore"):  # NaN and infinity show in the result
        return _diagnosed(rows, 1 / float(np.reshape(temperature, ())), normalize)


def _diagnosed(rows: Rows, scale: float, normalize: bool) -> Diagnostics:
    """The means; O(n d) but for the log-sum-exp and `_Negatives`, a pass over the tiles each."""
    z = rows.z
    pairs = OPS.closed_pairs(rows.ids, None, False, Options(normalize=normalize))
    (lse,), _ = pairs.forward(z, None, scale, keep=False)
    partners = [np.roll(z, -shift, axis=0) for shift in rows.shifts]
    positives = np.array([OPS.row_dot(z, partner) for partner in partners])
    losses = row_stage.stage_of(OPS, lse, [*positives], scale, "all", weighted=False).losses
    distances = [OPS.row_dot(z - partner, z - partner) for partner in partners]
    lengths = np.sqrt([OPS.row_dot(x, x) for x in (z, *partners)])
    rounding = z.shape[1] * np.finfo(z.dtype).eps * lengths[0] * lengths[1:]
    found = _Negatives(z, lse, scale, positives - rounding)
    # As if of any length, at scale 1: similarities themselves, -inf where ids are equal.
    tiles = Pairs(z, None, 1.0, (rows.ids, None), unit=False)
    for down, across, tile in tiles.tiles():
        found.add(down, across, tile, tiles.mirrored(down, across))
    return Diagnostics(
        loss=float(losses.mean(dtype=np.float64)),
        top1=float((found.harder < 1).mean()),
        top5=float((found.harder < 5).mean()),
        alignment=float(np.mean(distances)),
        uniformity=float(np.log(np.divide(found.closeness, found.pairs))),
        effective_negatives=found.effective(),
        positive_similarity=float(positives.mean()),
        negative_similarity=float(np.divide(found.similarity, found.pairs)),
        rows=len(z),
        negatives=found.pairs / len(z),
    )


class _Negatives:
    """Sums over the negatives (i, k), one tile of similarities at a time."""

    def __init__(self, z: Array, lse: Array, scale: float, bars: Array) -> None:
        self.lse, self.scale = lse, scale
        self.squares = np.einsum("ij,ij->i", z, z)
        self.bars = bars.astype(z.dtype)  # of each positive: what is as similar as it
        self.harder = np.zeros(bars.shape, np.int64)  # how many negatives reach it
        self.weight = np.zeros(len(z))  # of each row's negatives, 1 but for rounding
        self.moment = np.zeros(len(z))  # the sum of weight log(weight)
        self.pairs, self.similarity, self.closeness = 0, 0.0, 0.0

    def add(self, down: slice, across: slice, tile: Array, mirrored: bool) -> None:
        """A tile, for its rows and, where it also stands for its mirror image, its columns."""
        times, valid = (2 if mirrored else 1), tile != -math.inf
        self.pairs += times * int(np.count_nonzero(valid))
        self.similarity += times * tile.sum(where=valid, dtype=np.float64)
        distance = self.squares[down, None] + self.squares[across] - 2 * tile
        self.closeness += times * np.exp(-2 * distance).sum(dtype=np.float64)
        self.add_rows(down, tile)
        if mirrored:
            self.add_rows(across, tile.T)

    def add_rows(self, rows: slice, tile: Array) -> None:
        """What each row has of its own."""
        log_weight = np.maximum(self.scale * tile - self.lse[rows, None], NONE)
        weight = np.exp(log_weight)
        self.weight[rows] += weight.sum(1, dtype=np.float64)
        weight *= log_weight
        self.moment[rows] += weight.sum(1, dtype=np.float64)
        for number, bar in enumerate(self.bars):
            reached = ~(tile < bar[rows, None])  # by NaN, too
            self.harder[number, rows] += np.count_nonzero(reached, axis=1)

    def effective(self) -> float:
        """The mean over rows of exp(entropy), that of weights which add up to 1."""
        entropy = np.log(self.weight) - self.moment / self.weight
        return float(np.exp(entropy).mean()) if self.pairs else 0.0
