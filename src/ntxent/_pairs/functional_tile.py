"""A tile's part in the closed form, for arrays that can't be written to: JAX's and TensorFlow's.

`xp` is either's module; both name alike what is needed here. The mathematics is that of
`torch/_pairs/tile.py`, which writes into its tiles and so stands alone. Sums of exponentials are
(sum,) where scores are unshifted, and (sum, top) where they are below a running maximum. `nothing`
is the maximum of no pairs at all: -inf, or a number that no score is below.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

from ntxent._pairs import headroom
from ntxent._pairs.sides import Side

Array = Any


def sum_of(
    xp: Any, first: Sequence[Array], second: Sequence[Array], nothing: Any = -math.inf
) -> tuple[Array, ...]:
    """Two sums as one, below the larger maximum."""
    if len(first) == 1:
        return (first[0] + second[0],)
    (a, a_top), (b, b_top) = first, second
    top = xp.maximum(a_top, b_top)
    shift = finite(xp, top, nothing)
    return a * xp.exp(a_top - shift) + b * xp.exp(b_top - shift), top


def finite(xp: Any, top: Array, nothing: Any = -math.inf) -> Array:
    """0 for the maximum of no pairs at all."""
    return xp.where(top <= nothing, xp.zeros_like(top), top)


def prepared(xp: Any, side: Side, scale: Array, shifted: bool) -> Side:
    """g as it is if shifted, r = g exp(lift) / sum if not; see `ntxent._pairs.headroom`."""
    if shifted:
        return side
    return Side(side.upstream * xp.exp(headroom.lift(scale)) / side.divisor, side.divisor)


def factor(xp: Any, scale: Array, shifted: bool) -> Array:
    """What the products with the weights lack to be the gradient."""
    return scale if shifted else scale / xp.exp(headroom.lift(scale))


def weights(xp: Any, values: Array, row: Side | None, column: Side | None, shifted: bool) -> Array:
    """W from the exponentials of the scores, or from the scores if shifted; one side is there."""

    def part(side: Side, axis: int) -> Array:
        upstream, divisor = (xp.expand_dims(x, axis) for x in side)
        return xp.exp(values - divisor) * upstream if shifted else upstream

    parts = [part(side, axis) for side, axis in ((row, 1), (column, 0)) if side is not None]
    found = reduce(add, parts)
    return found if shifted else values * found
