"""Rows stacked, and divided by their lengths, with their derivatives: of `_tape_ops.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ntxent._tape import Array, Pullback, traceable

Ruled = tuple[Array, tuple[Any, ...], Pullback]


class TapeRows:
    """What every loss begins with, over numpy or torch."""

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        self.stack = traceable(self._stack)
        self.stack_unit = traceable(self._stack_unit)

    def _stack(self, *arrays: Array) -> Ruled:
        def pullback(_: Any, g: Array) -> Sequence[Array]:
            return self.chunks(self.cast(g, dtype), count)

        dtype, count = arrays[0].dtype, len(arrays)
        return self.widened(self.xp.concatenate(arrays)), (), pullback

    def _stack_unit(self, *arrays: Array) -> Ruled:
        def pullback(residuals: Any, g: Array) -> Sequence[Array]:
            unit, length = residuals
            tangent = self.minus_product(g, (g * unit).sum(-1, keepdims=True), unit)
            tangent /= length
            return self.chunks(self.cast(tangent, dtype), count)

        dtype, count = arrays[0].dtype, len(arrays)
        unit, length = self.unit_rows(arrays)
        return unit, (unit, self.cast(length, unit.dtype)), pullback

    def unit_rows(self, arrays: Sequence[Array]) -> tuple[Array, Array]:
        """The rows of all arrays, each divided by its length, in float32 or wider; the lengths.

        In float64, then rounded: a rounded length would be off for a whole row alike, and its
        similarities by up to an epsilon, which does not average out (docs/numerics.md).
        """
        rows = self.stacked_float64(arrays)
        if arrays[0].dtype != self.xp.float64:
            length = self.lengths(rows)
            return self.cast(rows / length, self.xp.float32), length
        # The square of a float32 stays within the range of a float64; its own may not.
        largest = self.largest(rows)
        rows = rows / largest
        length = self.lengths(rows)
        return rows / length, length * largest

    def widened(self, rows: Array) -> Array:
        """The rows in float32 if they were shorter."""
        return rows if rows.dtype == self.xp.float64 else self.cast(rows, self.xp.float32)

    def stacked_float64(self, arrays: Sequence[Array]) -> Array:
        """The rows of all arrays in float64."""
        raise NotImplementedError

    def chunks(self, rows: Array, count: int) -> Sequence[Array]:
        """The rows of each of so many stacked arrays."""
        raise NotImplementedError

    def lengths(self, rows: Array) -> Array:
        """The length of each row, the last axis of which becomes 1; infinite for a zero row."""
        raise NotImplementedError

    def largest(self, rows: Array) -> Array:
        """The largest absolute entry of each row, as a constant; 1 for a zero row."""
        raise NotImplementedError

    def cast(self, array: Array, dtype: Any) -> Array:
        """The array in the dtype, itself where it has it."""
        raise NotImplementedError

    def minus_product(self, a: Array, b: Array, c: Array) -> Array:
        """a - b * c."""
        return a - b * c
