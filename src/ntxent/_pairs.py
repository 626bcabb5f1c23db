"""What the closed-form gradient of `pair_logsumexp` needs around its tiles, for all arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

Array = Any


class Side(NamedTuple):
    """The upstream and the log-sum-exp of the rows, or of the columns.

    Once prepared, the upstream is the factor of exp(score - lse), or of exp(score) if unshifted.
    """

    upstream: Array
    lse: Array


def sides(upstream: Array, row_lse: Array, column_lse: Array | None) -> tuple[Side, Side | None]:
    """Those of the rows, and of the columns if they were asked for: their upstream follows."""
    if column_lse is None:
        return Side(upstream, row_lse), None
    rows = row_lse.shape[0]
    return Side(upstream[:rows], row_lse), Side(upstream[rows:], column_lse)


def scale_gradient(queries: Array, keys: Array | None, grad: Array, scale: Any) -> Array | None:
    """sum of q . dq / scale, or None for a scale that is a number.

    Without keys `grad` is that of the rows as queries and as keys, each of which would give the
    whole of it: half is meant.
    """
    if isinstance(scale, float):
        return None
    return (queries * grad).sum() / (2 * scale if keys is None else scale)
