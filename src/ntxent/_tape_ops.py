"""The O(n d) operations of `_formula.py` with their derivatives, for the backends on a tape.

NumPy and PyTorch name what is needed here alike, so `xp` is either module and each rule stands
once. JAX and TensorFlow differentiate for themselves and need no rules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from numbers import Real
from typing import Any

from ntxent._classes import Classes
from ntxent._tape import Array, Traced, traceable, untraced
from ntxent._tape_rows import Ruled, TapeRows


def is_array(value: Any) -> bool:
    """Whether a temperature or a scale is an array (or a traced one), not a number."""
    return type(value) is not float and not isinstance(value, Real)


class TapeOps(TapeRows):
    """`_protocol.Ops` without the hot operation, over numpy or torch."""

    def __init__(self, xp: Any) -> None:
        super().__init__(xp)
        self.partner_logits = traceable(self._partner_logits)
        self.partner_contrast = traceable(self._partner_contrast)
        self.contrast = traceable(self._contrast)
        self.logaddexp = traceable(self._logaddexp)
        self.positive_means = traceable(self._positive_means)
        self.half = traceable(self._half)
        self.reduce = traceable(self._reduce)
        self._inverse_rule = traceable(self._inverse)

    def count(self, rows: Array) -> int:
        """How many rows."""
        return len(rows)

    def accepts(self, value: Any) -> bool:
        """Whether the value is an array of this backend."""
        raise NotImplementedError

    def inverse(self, temperature: Any, like: Array) -> Any:
        """1/temperature: a float for a number, a 0-d array of `like`'s dtype for an array."""
        if not is_array(temperature):
            return 1 / float(temperature)
        return self._inverse_rule(temperature, untraced(like))

    def _inverse(self, temperature: Array, like: Array) -> Ruled:
        def pullback(residuals: Any, g: Array) -> tuple[Array | None, ...]:
            (inverse,) = residuals
            return self.cast(-g * inverse * inverse, dtype).reshape(shape), None

        dtype, shape = temperature.dtype, temperature.shape
        wide = self.cast(temperature, like.dtype).reshape(())
        # The value may be unknown yet: NaN says what a check can't.
        proper = (wide > 0) & (wide < math.inf)
        inverse = self.cast(self.xp.where(proper, 1 / wide, math.nan), like.dtype)
        return inverse, (inverse,), pullback

    # A positive is a few n-vectors of work, and the error of its float32 sum, divided by tau, would
    # be the largest error of the loss (docs/numerics.md): dots and all row losses are in float64.

    def _partner_logits(self, rows: Array, partners: Array | int, scale: Any) -> Ruled:
        def pullback(residuals: Any, g: Array) -> tuple[Array | None, ...]:
            dots, *pair = residuals
            grad_scale = self.scalar_like(scale, (g * dots).sum()) if is_array(scale) else None
            return *self.dot_gradients(g, scale, shift, *pair), grad_scale

        shift = None if self.accepts(partners) else partners
        dots, *pair = self.partner_dots(rows, partners)
        return dots * scale, (dots, *pair), pullback

    def _partner_contrast(
        self,
        lse: Array,
        rows: Array,
        partners: Array | int,
        scale: Any,
        within: Array | None = None,
    ) -> Ruled:
        def pullback(residuals: Any, g: Array) -> tuple[Array | None, ...]:
            x, y, dots, within, *pair = residuals
            weight = self.softplus_gradient(g, x, y)
            if within is not None:
                weight = self.xp.where(within, g, weight)
            weight = self.cast(weight, dtype)
            grad_scale = None
            if is_array(scale):
                grad_scale = self.scalar_like(scale, -(weight * dots).sum())
            grads = weight, *self.dot_gradients(weight, -scale, shift, *pair), grad_scale
            return grads if within is None else (*grads, None)

        dtype, shift = rows.dtype, None if self.accepts(partners) else partners
        dots, *pair = self.partner_dots(rows, partners)
        x = self.minus_product(lse, dots, scale)
        y = self.log1pexp(x)
        if within is not None:
            y = self.xp.where(within, x, y)
        return y, (x, y, dots, within, *pair), pullback

    def partner_contrasts(
        self, lses: Sequence[Array], rows: Array, partners: Array | int, scale: Any
    ) -> Sequence[Array]:
        """See `_protocol.Ops`: the positives are computed once, in float64."""
        if len(lses) == 1:
            return [self.partner_contrast(lses[0], rows, partners, scale)]
        positives = self.partner_logits(rows, partners, scale)
        return [self.contrast(lse, positives) for lse in lses]

    def scalar_like(self, scale: Array, grad: Array) -> Array:
        """The gradient of the scale in its dtype."""
        return self.cast(grad, scale.dtype)

    def partner_dots(self, rows: Array, partners: Array | int) -> tuple[Array, Array, Array | None]:
        """The dot product of each row with its partner, and what its derivative needs."""
        mutual = False
        if not self.accepts(partners):
            mutual = 2 * partners == rows.shape[0]
            partners = self.roll(rows, -partners)
        return self.row_dot(rows, partners), partners, None if mutual else rows

    def dot_gradients(
        self, g: Array, scale: Any, shift: int | None, partners: Array, rows: Array | None
    ) -> tuple[Array, Array | None]:
        """The gradients of rows and partners from g, that of their dot products times the scale.

        With a shift partners are rows too, and all of it is the rows' gradient.
        """
        g = self.cast(g, partners.dtype)
        if rows is None:  # rows i + shift and i - shift are one, the partner
            both = g + self.roll(g, shift)
            both *= scale
            return self.column(both) * partners, None
        column = self.column(g * scale)
        if shift is None:
            return column * partners, column * rows
        return self.roll(column * rows, shift) + column * partners, None

    def roll(self, rows: Array, shift: Any) -> Array:
        """The rows, each `shift` further on, the last ones first."""
        return self.xp.roll(rows, shift, 0)

    def row_dot(self, a: Array, b: Array) -> Array:
        """The dot product of each row of `a` with the same row of `b`, summed in float64."""
        raise NotImplementedError

    def _positive_means(self, rows: Array, classes: Classes, across: Any) -> Ruled:
        def pullback(residuals: Any, g: Array) -> tuple[Array, None, None]:
            groups, divisor = residuals
            share = self.cast(g, self.xp.float64) / divisor
            return self.cast(self.class_sums(share, groups, across) - share, dtype), None, None

        dtype, groups = rows.dtype, classes.groups
        divisor = self.column(self.or_one(classes.others))
        wide = self.cast(rows, self.xp.float64)
        means = self.cast((self.class_sums(wide, groups, across) - wide) / divisor, dtype)
        return means, (groups, divisor), pullback

    def class_sums(self, rows: Array, groups: Array, across: Any) -> Array:
        """For each row the sum of all rows of its group, itself among them."""
        raise NotImplementedError

    def own_logsumexp(self, queries: Array, keys: Array, scale: Any) -> Array:
        """See `_protocol.Ops`; keys have a gradient if they are traced."""
        by_keys = type(keys) is Traced
        return traceable(partial(self._own_logsumexp, by_keys))(queries, keys, scale)

    def _own_logsumexp(self, by_keys: bool, queries: Array, keys: Array, scale: Any) -> Ruled:
        def pullback(residuals: Any, g: Array) -> tuple[Array | None, ...]:
            queries, keys, dots, lse = residuals
            weight = self.xp.exp(dots * scale - self.column(lse)) * self.column(g)
            grad_scale = self.scalar_like(scale, (weight * dots).sum()) if is_array(scale) else None
            weight = weight * scale
            by_query = (weight[:, None] @ keys)[:, 0]
            by_key = weight[:, :, None] * queries[:, None] if by_keys else None
            return by_query, by_key, grad_scale

        dots = (keys @ queries[:, :, None])[:, :, 0]
        lse = self.logsumexp(dots * scale)
        return lse, (queries, keys, dots, lse), pullback

    def logsumexp(self, scores: Array) -> Array:
        """Along the rows of a matrix."""
        raise NotImplementedError

    def _half(self, x: Array, index: int) -> Ruled:
        def pullback(_: Any, g: Array) -> tuple[Array, None]:
            grads = [self.xp.zeros_like(g), g] if index else [g, self.xp.zeros_like(g)]
            return self.xp.concatenate(grads), None

        size = x.shape[0] // 2
        return x[index * size : (index + 1) * size], (), pullback

    def column(self, x: Array) -> Array:
        """A vector as a column, (n, 1)."""
        return x[:, None]

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
            y = self.xp.where(y == -math.inf, math.inf, y)
            return g * self.xp.exp(a - y), g * self.xp.exp(b - y)

        # Of nothing and nothing: no derivative, where exp(-inf + inf) would be NaN.
        nothing = (a == -math.inf) & (b == -math.inf)
        y = self.xp.logaddexp(self.xp.where(nothing, 0.0, a), b)
        y = self.xp.where(nothing, -math.inf, y)
        return y, (a, b, y), pullback

    def _reduce(self, rows: Array, reduction: str, dtype: Any) -> Ruled:
        def pullback(_: Any, g: Any) -> tuple[Array | None, ...]:
            if reduction == "none":
                return g, None, None
            return self.spread(g / size if reduction == "mean" else g, size, place), None, None

        if reduction == "none":
            return self.cast(rows, dtype), (), pullback
        size, place = rows.shape[0], self.device(rows)
        return (rows.mean if reduction == "mean" else rows.sum)(dtype=dtype), (), pullback

    def spread(self, x: Any, size: int, device: Any) -> Array:
        """A number or a 0-d array as a vector."""
        raise NotImplementedError

    def or_one(self, count: Array) -> Array:
        """The number, 1 in place of 0."""
        raise NotImplementedError

    def repeat(self, ids: Array, times: int) -> Array:
        """The ids over and over, once a view."""
        return self.xp.concatenate((ids,) * times)

    def device(self, array: Array) -> Any:
        """Where the array lives."""
        return untraced(array).device
