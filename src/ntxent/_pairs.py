"""What the closed-form gradient of `pair_logsumexp` needs around its tiles, for all arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

Array = Any


class Side(NamedTuple):
    """The upstream of the rows (or of the columns) and what their exponentials are divided by.

    That is their sum where scores are unshifted, as a logarithm where they are shifted. Once
    prepared, the upstream is the factor of exp(score), or of exp(score - divisor) if shifted.
    """

    upstream: Array
    divisor: Array


def sides(upstream: Array, row: Array, column: Array | None) -> tuple[Side, Side | None]:
    """From the divisors of rows, and of columns if they were asked for: their upstream follows."""
    if column is None:
        return Side(upstream, row), None
    rows = row.shape[0]
    return Side(upstream[:rows], row), Side(upstream[rows:], column)


def scale_gradient(queries: Array, keys: Array | None, grad: Array, scale: Any) -> Array | None:
    """sum of q . dq / scale, or None for a scale that is a number.

    Without keys `grad` is that of the rows as queries and as keys, each of which would give the
    whole of it: half is meant.
    """
    if isinstance(scale, float):
        return None
    return (queries * grad).sum() / (2 * scale if keys is None else scale)
