"""The steps of the closed form on arrays of NumPy: all of `ntxent.numpy`'s, and, in PyTorch, those
of a batch of one tile on a CPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ntxent._classes import Classes, classes
from ntxent._closed_ops import ClosedOps

Array = np.ndarray[Any, Any]


class NumpyClosedOps(ClosedOps):
    """`_closed_ops.ClosedOps` for arrays."""

    def __init__(self) -> None:
        super().__init__(np)

    def cast(self, array: Array, dtype: Any) -> Array:
        return array.astype(dtype, copy=False)

    def softplus(self, x: Array) -> Array:
        """log(1 + exp(x)) to the last digit."""
        return np.logaddexp(x, 0)

    def sigmoid(self, x: Array, softplus: Array, dtype: Any) -> Array:
        """The derivative of softplus, also to the last digit where it is small."""
        found: Array = np.exp(x - softplus)
        return found.astype(dtype, copy=False)

    def parts(self, rows: Array, count: int) -> Sequence[Array]:
        """The rows of each of so many stacked arrays."""
        size = len(rows) // count
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def stacked_float64(self, arrays: Sequence[Array]) -> Array:
        return np.concatenate(arrays, dtype=np.float64)

    def lengths(self, rows: Array) -> Array:
        squares = np.vecdot(rows, rows)[..., None]
        return np.sqrt(np.where(squares == 0, math.inf, squares))

    def largest(self, rows: Array) -> Array:
        largest: Array = np.abs(rows).max(-1, keepdims=True)
        return np.where(largest == 0, 1.0, largest)

    def roll(self, rows: Array, shift: Any) -> Array:
        # A quarter of np.roll's time, which was a tenth of a batch of 16's.
        return np.concatenate((rows[-shift:], rows[:-shift]))

    def row_dot(self, a: Array, b: Array) -> Array:
        """The dot product of each row of `a` with the same row of `b`, summed in float64."""
        found: Array = np.einsum("ij,ij->i", a, b, dtype=np.float64)
        return found

    def classes(self, labels: Array, across: Any) -> Classes:
        del across
        return classes(np, labels, np.sort(labels), np.float64)

    def class_sums(self, rows: Array, groups: Array, across: Any) -> Array:
        del across
        # A group's number is where it begins among the sorted rows: `classes` found it so.
        begins, place = np.unique(groups, return_inverse=True)
        sums: Array = np.add.reduceat(rows[np.argsort(groups, kind="stable")], begins)
        return sums[place]

    def logsumexp(self, scores: Array) -> Array:
        """Along the rows of a matrix."""
        return logsumexp(scores, 1)

    def or_one(self, count: Array) -> Array:
        return np.where(count == 0, 1.0, count)

    def one_id(self, rows: Array, value: int) -> Array:
        return np.full(len(rows), value)


def logsumexp(scores: Array, axis: int) -> Array:
    """Log-sum-exp below the maximum; -inf for a row without any pair."""
    top = scores.max(axis)
    shift = np.where(top == -math.inf, 0, top)
    lse: Array = shift + np.log(np.exp(scores - np.expand_dims(shift, axis)).sum(axis))
    return lse
