"""What the closed-form gradient of `pair_logsumexp` needs around its tiles, for all arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

Array = Any


class Side(NamedTuple):
    """The upstream of the rows (or of the columns) and what their exponentials are divided by.

    That is their sum where scores are unshifted, as a logarithm where they are shifted. Once
    prepared, the upstream is the factor of exp(score), or of exp(score - divisor) if shifted.
    """

    upstream: Array
    divisor: Array


def two_sides(
    queries: Any, keys: Any, query_ids: Any, key_ids: Any, columns: bool
) -> tuple[Any, Any]:
    """The keys and their ids: None for the triangular case, where columns are rows over again.

    Ids are arrays, or one period for both sides; what is asked of two sides gets two.
    """
    if key_ids is not None:
        periods = [isinstance(ids, int) for ids in (query_ids, key_ids)]
        if any(periods) and not (all(periods) and query_ids == key_ids):
            msg = f"one period must serve both sides; got {query_ids!r} and {key_ids!r}."
            raise ValueError(msg)
    elif keys is None and not columns:
        return None, None
    return queries if keys is None else keys, query_ids if key_ids is None else key_ids


class Pairs(NamedTuple):
    """What every form of JAX and TensorFlow is given; see `ntxent._protocol.Ops.pair_logsumexp`."""

    queries: Array
    keys: Array | None  # None: the queries themselves
    scale: Any
    query_ids: Any  # none in a gradient
    key_ids: Any

    @property
    def others(self) -> Array:
        """The keys, whoever they are."""
        return self.queries if self.keys is None else self.keys

    @property
    def inputs(self) -> tuple[Array, ...]:
        """What there are gradients of: queries, scale, and keys if they have their own."""
        given = self.queries, self.scale
        return given if self.keys is None else (*given, self.keys)

    def of(self, queries: Array, scale: Array, keys: Array | None = None) -> Pairs:
        """The same of other inputs."""
        return self._replace(queries=queries, scale=scale, keys=keys)


def pairs_of(
    as_ids: Callable[[Any, Array], Array],
    queries: Array,
    keys: Array | None,
    scale: Any,
    query_ids: Any,
    key_ids: Any,
    columns: bool,
) -> Pairs:
    """From the arguments of `Ops.pair_logsumexp`; `as_ids` makes arrays of periods."""
    keys, key_ids = two_sides(queries, keys, query_ids, key_ids, columns)
    left = as_ids(query_ids, queries)
    right = left if key_ids is None else as_ids(key_ids, queries if keys is None else keys)
    return Pairs(queries, keys, scale, left, right)


def sides(
    upstream: Array, row: Array, column: Array | None, rows: Any = None
) -> tuple[Side, Side | None]:
    """From the divisors of rows, and of columns if they were asked for: their upstream follows.

    `rows` is how many, where the shape doesn't know.
    """
    if column is None:
        return Side(upstream, row), None
    rows = row.shape[0] if rows is None else rows
    return Side(upstream[:rows], row), Side(upstream[rows:], column)


def scale_gradient(queries: Array, keys: Array | None, grad: Array, scale: Any) -> Array | None:
    """sum of q . dq / scale, or None for a scale that is a number.

    Without keys `grad` is that of the rows as queries and as keys, each of which would give the
    whole of it: half is meant.
    """
    if isinstance(scale, float):
        return None
    return (queries * grad).sum() / (2 * scale if keys is None else scale)
