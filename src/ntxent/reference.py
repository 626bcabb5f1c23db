"""The formula as plain loops in float64: the way a reader of the paper would first write it.

    from ntxent.reference import nt_xent

Nothing here is fast, and nothing is shared with the backends: it is the oracle that their tests are
held to. Sizes, as in arXiv 2002.05709: N images, two (or V) augmented views of each, 2N (or VN)
rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def nt_xent(
    *views: Any,
    temperature: float = 0.1,
    ids: Any = None,
    denominator: str = "all",
    normalize: bool = True,
) -> float:
    r"""NT-Xent by the paper's words: the mean over all rows of `row_losses`.

    Parameters
    ----------
    *views : array_like, shape (N, d)
        Two or more views of the same N images, row i of each from image i.
    temperature : float, default 0.1
        The divisor of the similarities.
    ids : sequence of int, length N, optional
        Images with equal ids are never negatives of each other; by default all differ.
    denominator : {"all", "one_positive", "negatives"}, default "all"
        As in the backends.
    normalize : bool, default True
        Divide every row by its length.

    Returns
    -------
    float
        The loss. Time O(n^2 d) in Python's own loops, n = VN.

    Examples
    --------
    >>> from ntxent.reference import nt_xent
    >>> same = [[1.0, 0.0], [1.0, 0.0]]
    >>> round(nt_xent(same, same), 6)  # identical rows: log(2N - 1)
    1.098612
    """
    losses = row_losses(
        *views, temperature=temperature, ids=ids, denominator=denominator, normalize=normalize
    )
    return math.fsum(losses) / len(losses)


def row_losses(
    *views: Any,
    temperature: float = 0.1,
    ids: Any = None,
    denominator: str = "all",
    normalize: bool = True,
) -> list[float]:
    """The loss of every row: those of the first view, then those of the second, and so on."""
    similar = similarities(stacked(views, normalize))
    positives = positive_pairs(len(views), len(views[0]))
    negatives = negative_rows(len(views), len(views[0]), ids)
    losses = []
    for i, own in positives.items():
        terms = []
        for j in own:
            # l_i = -log( exp(s_ij/tau) / sum_k exp(s_ik/tau) )
            #     = log sum_k exp((s_ik - s_ij)/tau), where k = j gives exp(0) = 1
            others = compared_with(own, negatives[i], j, denominator)
            terms.append(
                log_sum_exp([(similar[i, k] - similar[i, j]) / temperature for k in others])
            )
        losses.append(math.fsum(terms) / len(terms))
    return losses


def stacked(views: Sequence[Any], normalize: bool) -> Array:
    """The rows of the first view, then those of the second, each of length 1; a zero row stays."""
    rows = []
    for view in views:
        for row in np.asarray(view, np.float64):
            length = math.hypot(*row)
            rows.append(row / length if normalize and length > 0 else row)
    return np.array(rows)


def similarities(rows: Array) -> Array:
    """s_ik, the dot product of every two rows."""
    similar = np.empty((len(rows), len(rows)))
    for i, row in enumerate(rows):
        for k, other in enumerate(rows):
            similar[i, k] = row @ other
    return similar


def positive_pairs(views: int, images: int) -> dict[int, list[int]]:
    """For every row its image's rows in the other views: with two views {0: [N], N: [0], ...}."""
    pairs = {}
    for view in range(views):
        for image in range(images):
            pairs[view * images + image] = [
                other * images + image for other in range(views) if other != view
            ]
    return pairs


def negative_rows(views: int, images: int, ids: Any) -> dict[int, list[int]]:
    """For every row the rows whose image has another id."""
    names = list(range(images)) if ids is None else [int(x) for x in ids]
    rows = range(views * images)
    return {i: [k for k in rows if names[k % images] != names[i % images]] for i in rows}


def compared_with(own: list[int], negatives: list[int], j: int, denominator: str) -> list[int]:
    """The rows k of the denominator for the positive j."""
    if denominator == "all":
        return [*own, *negatives]
    if denominator == "one_positive":
        return [j, *negatives]
    return negatives


def log_sum_exp(exponents: list[float]) -> float:
    """log sum exp, also to the last digit where one exponent is 0 and the others are far below."""
    top = max(exponents)
    at_top = exponents.index(top)
    rest = math.fsum(math.exp(x - top) for k, x in enumerate(exponents) if k != at_top)
    return top + math.log1p(rest)


def gradients(
    *views: Any,
    temperature: float = 0.1,
    ids: Any = None,
    denominator: str = "all",
    normalize: bool = True,
    upstream: Any = None,
) -> tuple[list[Array], float]:
    """The gradients of the views and of the temperature, pair by pair.

    `upstream` weighs the row losses; by default 1/n each, as in the mean. With p_k the share of row
    k in the denominator of the pair (i, j), d l / d s_ik = p_k / tau and d l / d s_ij = (p_j - 1) /
    tau, where 1 - p_j is summed from the other shares, as it may be far below 1e-16.
    """
    rows = stacked(views, normalize)
    similar = similarities(rows)
    positives = positive_pairs(len(views), len(views[0]))
    negatives = negative_rows(len(views), len(views[0]), ids)
    weights = [1 / len(rows)] * len(rows) if upstream is None else [float(x) for x in upstream]
    grad_rows, grad_temperature = np.zeros_like(rows), 0.0
    for i, own in positives.items():
        for j in own:
            others = compared_with(own, negatives[i], j, denominator)
            shares = dict(zip(others, softmax(similar[i, others] / temperature), strict=True))
            slopes = {**shares, j: -math.fsum(p for k, p in shares.items() if k != j)}
            for k, share in slopes.items():
                slope = share * weights[i] / len(own) / temperature
                grad_rows[i] += slope * rows[k]
                grad_rows[k] += slope * rows[i]
                grad_temperature -= slope * similar[i, k] / temperature
    flat = np.concatenate([np.asarray(view, np.float64) for view in views])
    if normalize:
        grad_rows = through_normalisation(flat, rows, grad_rows)
    return list(np.split(grad_rows, len(views))), grad_temperature


def softmax(logits: Array) -> Array:
    """The share of each in the sum of their exponentials."""
    exponentials = np.exp(logits - logits.max())
    shares: Array = exponentials / exponentials.sum()
    return shares


def through_normalisation(rows: Array, unit: Array, grad: Array) -> Array:
    """dx = (dz - (dz . z) z) / |x| row by row; 0 for a zero row."""
    found = np.zeros_like(rows)
    for i, row in enumerate(rows):
        length = math.hypot(*row)
        if length > 0:
            found[i] = (grad[i] - (grad[i] @ unit[i]) * unit[i]) / length
    return found
