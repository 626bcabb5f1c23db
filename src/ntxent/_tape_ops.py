"""The O(n d) operations of `_formula.py` with their derivatives, for the backends on a tape.

NumPy and PyTorch name what is needed here alike, so `xp` is either module and each rule stands
once. JAX and TensorFlow differentiate for themselves and need no rules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

from ntxent._tape import Array, Pullback, traceable, untraced

Ruled = tuple[Array, tuple[Any, ...], Pullback]


def is_array(value: Any) -> bool:
    """Whether a temperature or a scale is an array (or a traced one), not a number."""
    return type(value) is not float and not isinstance(value, Real)


class TapeOps:
    """`_formula.Ops` without the hot operation, over numpy or torch."""

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        self.stack = traceable(self._stack)
        self.stack_unit = traceable(self._stack_unit)
        self.partner_logits = traceable(self._partner_logits)
        self.partner_contrast = traceable(self._partner_contrast)
        self.contrast = traceable(self._contrast)
        self.logaddexp = traceable(self._logaddexp)
        self.reduce = traceable(self._reduce)
        self._inverse_rule = traceable(self._inverse)

    def count(self, rows: Array) -> int:
        """How many rows."""
        return len(rows)

    def cast(self, array: Array, dtype: Any) -> Array:
        """The array in the dtype, itself where it has it."""
        raise NotImplementedError

    def inverse(self, temperature: Any, like: Array) -> Any:
        """1/temperature: a float for a number, an array of `like`'s dtype for an array."""
        if not is_array(temperature):
            return 1 / float(temperature)
        return self._inverse_rule(temperature, untraced(like))

    def _inverse(self, temperature: Array, like: Array) -> Ruled:
        def pullback(residuals: Any, g: Array) -> tuple[Array | None, ...]:
            (inverse,) = residuals
            return self.cast(-g * inverse * inverse, dtype), None

        dtype, wide = temperature.dtype, self.cast(temperature, like.dtype)
        # The value may be unknown yet: NaN says what a check can't.
        proper = (wide > 0) & (wide < math.inf)
        inverse = self.cast(self.xp.where(proper, 1 / wide, math.nan), like.dtype)
        return inverse, (inverse,), pullback

    def _stack(self, *views: Array) -> Ruled:
        def pullback(_: Any, g: Array) -> Sequence[Array]:
            return self.chunks(self.cast(g, dtype), count)

        dtype, count = views[0].dtype, len(views)
        return self.widened(self.xp.concatenate(views)), (), pullback

    def _stack_unit(self, *views: Array) -> Ruled:
        def pullback(residuals: Any, g: Array) -> Sequence[Array]:
            unit, length = residuals
            tangent = self.minus_product(g, (g * unit).sum(1, keepdims=True), unit)
            tangent /= length
            return self.chunks(self.cast(tangent, dtype), count)

        dtype, count = views[0].dtype, len(views)
        # In float64, then rounded: a rounded length would be off for a whole row alike, and its
        # similarities by up to an epsilon, which does not average out (docs/numerics.md).
        rows, wide = self.stacked_float64(views), self.xp.float32
        if dtype == self.xp.float64:
            # The square of a float32 stays within the range of a float64; its own may not.
            wide, largest = dtype, self.largest(rows)
            rows = rows / largest
        inverse = self.inverse_norms(rows)
        unit, length = self.cast(rows * inverse, wide), self.xp.reciprocal(inverse)
        if dtype == self.xp.float64:
            length = length * largest
        return unit, (unit, self.cast(length, wide)), pullback

    def widened(self, rows: Array) -> Array:
        """The rows in float32 if they were shorter."""
        return rows if rows.dtype == self.xp.float64 else self.cast(rows, self.xp.float32)

    def stacked_float64(self, views: Sequence[Array]) -> Array:
        """The rows of all views in float64."""
        raise NotImplementedError

    def chunks(self, rows: Array, count: int) -> Sequence[Array]:
        """The rows of each of so many stacked arrays."""
        raise NotImplementedError

    def inverse_norms(self, rows: Array) -> Array:
        """1 over the root of the sum of squares of each row, (n, 1); 0 for a zero row."""
        raise NotImplementedError

    def largest(self, rows: Array) -> Array:
        """The largest absolute entry of each row, (n, 1), as a constant; 1 for a zero row."""
        raise NotImplementedError

    # A positive is a few n-vectors of work, and the error of its float32 sum, divided by tau, would
    # be the largest error of the loss (docs/numerics.md): dots and all row losses are in float64.

    def _partner_logits(self, rows: Array, shift: int, scale: Any) -> Ruled:
        def pullback(residuals: Any, g: Array) -> tuple[Array | None, ...]:
            dots, *pair = residuals
            grad_scale = self.scalar_like(scale, (g * dots).sum()) if is_array(scale) else None
            return self.dot_gradient(g, scale, shift, *pair), None, grad_scale

        dots, *pair = self.partner_dots(rows, shift)
        return dots * scale, (dots, *pair), pullback

    def _partner_contrast(self, lse: Array, rows: Array, shift: int, scale: Any) -> Ruled:
        def pullback(residuals: Any, g: Array) -> tuple[Array | None, ...]:
            x, y, dots, *pair = residuals
            weight = self.cast(self.softplus_gradient(g, x, y), dtype)
            grad_scale = None
            if is_array(scale):
                grad_scale = self.scalar_like(scale, -(weight * dots).sum())
            return weight, self.dot_gradient(weight, -scale, shift, *pair), None, grad_scale

        dtype = rows.dtype
        dots, *pair = self.partner_dots(rows, shift)
        x = self.minus_product(lse, dots, scale)
        y = self.log1pexp(x)
        return y, (x, y, dots, *pair), pullback

    def scalar_like(self, scale: Array, grad: Array) -> Array:
        """The gradient of the scale in its dtype."""
        return self.cast(grad, scale.dtype)

    def partner_dots(self, rows: Array, shift: int) -> tuple[Array, Array, Array | None]:
        """The dot product of row i with row i + shift, and what its derivative needs."""
        partners = self.xp.roll(rows, -shift, 0)
        mutual = 2 * shift == rows.shape[0]
        return self.row_dot(rows, partners), partners, None if mutual else rows

    def dot_gradient(
        self, g: Array, scale: Any, shift: int, partners: Array, rows: Array | None
    ) -> Array:
        """The gradient of the rows from g, that of their dot products times the scale."""
        g = self.cast(g, partners.dtype)
        if rows is None:  # rows i + shift and i - shift are one, the partner
            both = g + self.xp.roll(g, shift, 0)
            both *= scale
            return self.column(both) * partners
        column = self.column(g * scale)
        return self.xp.roll(column * rows, shift, 0) + column * partners

    def row_dot(self, a: Array, b: Array) -> Array:
        """The dot product of each row of `a` with the same row of `b`, summed in float64."""
        raise NotImplementedError

    def column(self, x: Array) -> Array:
        """A vector as a column, (n, 1)."""
        return x[:, None]

    def minus_product(self, a: Array, b: Array, c: Array) -> Array:
        """a - b * c."""
        return a - b * c

    def _contrast(self, lse: Array, positive: Array) -> Ruled:
        def pullback(residuals: Any, g: Array) -> tuple[Array, ...]:
            grad = self.cast(self.softplus_gradient(g, *residuals), dtype)
            return grad, -grad

        dtype = lse.dtype
        x = lse - positive
        y = self.log1pexp(x)
        return y, (x, y), pullback

    def log1pexp(self, x: Array) -> Array:
        """log(1 + exp(x)) to the last digit."""
        raise NotImplementedError

    def softplus_gradient(self, g: Array, x: Array, softplus: Array) -> Array:
        """g times the derivative of softplus, also to the last digit where that is small."""
        return g * self.xp.exp(x - softplus)

    def _logaddexp(self, a: Array, b: Array) -> Ruled:
        def pullback(residuals: Any, g: Array) -> tuple[Array, ...]:
            a, b, y = residuals
            return g * self.xp.exp(a - y), g * self.xp.exp(b - y)

        y = self.xp.logaddexp(a, b)
        return y, (a, b, y), pullback

    def _reduce(self, rows: Array, reduction: str, dtype: Any) -> Ruled:
        def pullback(_: Any, g: Any) -> tuple[Array | None, ...]:
            if reduction == "none":
                return g, None, None
            return self.spread(g / size if reduction == "mean" else g, size, place), None, None

        size, place = rows.shape[0], self.device(rows)
        if reduction == "none":
            return self.cast(rows, dtype), (), pullback
        return (rows.mean if reduction == "mean" else rows.sum)(dtype=dtype), (), pullback

    def spread(self, x: Any, size: int, device: Any) -> Array:
        """A number or a 0-d array as a vector."""
        raise NotImplementedError

    def repeat(self, ids: Array, times: int) -> Array:
        """The ids over and over, once a view."""
        return self.xp.concatenate((ids,) * times)

    def all_equal(self, ids: Array) -> bool:
        """Whether all ids are one and the same."""
        return bool((ids == ids[0]).all())

    def device(self, array: Array) -> Any:
        """Where the array lives."""
        return untraced(array).device
