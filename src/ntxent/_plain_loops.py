"""What the plain loops of `reference.py` share: similarities, shares, gradients of pairs.

Everything is float64, one pair at a time; a loss is a list of `Term`s over the similarities.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class Term(NamedTuple):
    """weight * -log( exp(s_ij/tau) / sum_k exp(s_ik/tau) ): row i must find j among `others`."""

    i: int
    j: int
    others: list[int]
    weight: float


def stacked(arrays: Sequence[Any], normalize: bool) -> Array:
    """The rows of the first array, then those of the second, each of length 1; a zero row stays."""
    rows = []
    for array in arrays:
        for row in np.asarray(array, np.float64):
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


def loss_of(terms: Sequence[Term], similar: Array, temperature: float) -> float:
    """The sum of the terms."""
    losses = []
    for i, j, others, weight in terms:
        # -log( exp(s_ij/tau) / sum_k exp(s_ik/tau) )
        #   = log sum_k exp((s_ik - s_ij)/tau), where k = j gives exp(0) = 1
        exponents = [(similar[i, k] - similar[i, j]) / temperature for k in others]
        losses.append(weight * log_sum_exp(exponents))
    return math.fsum(losses)


def log_sum_exp(exponents: list[float]) -> float:
    """log sum exp, also to the last digit where one exponent is 0 and the others are far below."""
    top = max(exponents)
    at_top = exponents.index(top)
    rest = math.fsum(math.exp(x - top) for k, x in enumerate(exponents) if k != at_top)
    return top + math.log1p(rest)


def gradients_of(
    terms: Sequence[Term], arrays: Sequence[Any], temperature: float, normalize: bool
) -> tuple[list[Array], float]:
    """The gradients of the arrays and of the temperature, pair by pair.

    With p_k the share of row k in the denominator of a term, d l / d s_ik = p_k / tau and
    d l / d s_ij = (p_j - 1) / tau, where 1 - p_j is summed from the other shares, as it may be far
    below 1e-16.
    """
    rows = stacked(arrays, normalize)
    similar = similarities(rows)
    grad_rows, grad_temperature = np.zeros_like(rows), 0.0
    for i, j, others, weight in terms:
        shares = dict(zip(others, softmax(similar[i, others] / temperature), strict=True))
        slopes = {**shares, j: -math.fsum(p for k, p in shares.items() if k != j)}
        for k, share in slopes.items():
            slope = share * weight / temperature
            grad_rows[i] += slope * rows[k]
            grad_rows[k] += slope * rows[i]
            grad_temperature -= slope * similar[i, k] / temperature
    if normalize:
        flat = np.concatenate([np.asarray(array, np.float64) for array in arrays])
        grad_rows = through_normalisation(flat, rows, grad_rows)
    ends = np.cumsum([len(array) for array in arrays])[:-1]
    return list(np.split(grad_rows, ends)), grad_temperature


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
