"""What the closed form asks of NumPy and PyTorch, as far as they name it alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

from ntxent._labels import Classes
from ntxent._protocol import Array


class ClosedOps:
    """What the steps ask, over numpy or torch; a backend adds what its library names alone."""

    cast: Any  # (array, dtype): itself where it has it
    stacked_float64: Any  # (arrays): the rows of all
    lengths: Any  # (rows): of each, the last axis becoming 1; infinite for a zero row
    largest: Any  # (rows): the largest absolute entry of each, a constant; 1 for a zero row
    class_sums: Any  # (rows, groups, across): for each row the sum of all rows of its group
    or_one: Any  # (count): 1 in place of 0
    row_dot: Any  # (a, b): the dot product of each row of a with that of b, in float64
    softplus: Any  # (x): log(1 + exp(x))
    sigmoid: Any  # (x, softplus): its derivative, from both
    logsumexp: Any  # (scores): along the rows of a matrix
    parts: Any  # (rows, count): the rows of each of so many stacked arrays
    classes: Any  # (labels, across): `_labels.Classes`
    one_id: Any  # (rows, value): an id for each row, all alike
    closed_pairs: Any  # (query_ids, key_ids, columns, options): the hot operation

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    def expect(self, arrays: Sequence[Array], sides: int) -> None:
        """Make ready for all pairs of these rows, which are one side of them or two."""

    def inverse(self, temperature: Any, like: Array) -> Any:
        """1/temperature: a float for a number, a 0-d array of `like`'s dtype for an array."""
        # A float is asked for first, as the abstract class of numbers takes longer.
        if type(temperature) is float or isinstance(temperature, Real):
            return 1 / float(temperature)
        wide = self.cast(temperature, like.dtype).reshape(())
        # The value may be unknown yet: NaN says what a check can't.
        proper = (wide > 0) & (wide < math.inf)
        return self.cast(self.xp.where(proper, 1 / wide, math.nan), like.dtype)

    def stack(self, *arrays: Array) -> Array:
        """The rows of all arrays, in float32 or wider."""
        rows = self.xp.concatenate(arrays)
        return rows if rows.dtype == self.xp.float64 else self.cast(rows, self.xp.float32)

    def unit_rows(self, arrays: Sequence[Array]) -> tuple[Array, Array]:
        """The rows of all arrays, each divided by its length, in float32 or wider; the lengths.

        In float64, then rounded: a rounded length would be off for a whole row alike, and its
        similarities by up to an epsilon, which does not average out (docs/numerics.md).
        """
        rows = self.stacked_float64(arrays)
        if arrays[0].dtype != self.xp.float64:
            length = self.lengths(rows)
            return self.float32_quotient(rows, length), self.cast(length, self.xp.float32)
        # The square of a float32 stays within the range of a float64; its own may not.
        largest = self.largest(rows)
        rows = rows / largest
        length = self.lengths(rows)
        return rows / length, length * largest

    def float32_quotient(self, rows: Array, lengths: Array) -> Array:
        """rows / lengths, rounded to float32."""
        return self.cast(rows / lengths, self.xp.float32)

    def through_unit(self, grad: Array, unit: Array, lengths: Array) -> Array:
        """The gradient of rows from that of unit rows, in the memory of that."""
        grad -= (grad * unit).sum(-1, keepdims=True) * unit
        grad /= lengths
        return grad

    def less_product(self, grad: Array, column: Array, rows: Array, scale: Any) -> Array:
        """The gradient less scale times each row by its number in the column, in its memory."""
        grad -= (column * scale) * rows
        return grad

    def minus_product(self, a: Array, b: Array, c: Any) -> Array:
        """a - b * c."""
        return a - b * c

    def scaled(self, dot: Any, scale: Any) -> Array:
        """A dot product of `row_dot` times the scale."""
        found: Array = dot * scale
        return found

    def column(self, x: Array) -> Array:
        """A vector as a column, (n, 1)."""
        return x[:, None]

    def roll(self, rows: Array, shift: Any) -> Array:
        """The rows, each `shift` further on, the last ones first."""
        return self.xp.roll(rows, shift, 0)

    def repeat(self, ids: Array, times: int) -> Array:
        """The ids over and over, once a view."""
        return self.xp.concatenate((ids,) * times)

    def class_means(self, rows: Array, classes: Classes, across: Any) -> tuple[Array, Array]:
        """The mean of the other rows of each row's class, 0 where there is none; how many, or 1."""
        others = self.column(self.or_one(classes.others))
        wide = self.cast(rows, self.xp.float64)
        sums = self.class_sums(wide, classes.groups, across) - wide
        return self.cast(sums / others, rows.dtype), others
