"""The hot operation in NumPy, dense and tiled, each with its closed-form derivative."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ntxent._pairs import scale_gradient, sides, two_sides
from ntxent._tape import Pullback, Rule, Traced
from ntxent.numpy import _tiled
from ntxent.numpy._tiled import Array, Ids, similarities

IMPLEMENTATIONS: tuple[str, ...] = ("dense", "tiled")


def pair_logsumexp(
    queries: Any,
    keys: Any | None,
    scale: Any,
    query_ids: Ids,
    key_ids: Ids,
    *,
    unit: bool,
    columns: bool = False,
    implementation: str | None = None,
    across: Any = None,
) -> Any:
    """See `ntxent._protocol.Ops.pair_logsumexp`."""
    del across
    keys, key_ids = two_sides(queries, keys, query_ids, key_ids, columns)
    rule = _dense_rule if implementation == "dense" else _tiled_rule
    inputs = (queries, keys, scale)
    made = rule((query_ids, key_ids), unit, columns, type(keys) is Traced)
    for x in inputs:
        if type(x) is Traced:
            return x.tape.apply(made, inputs)
    return made(*inputs)[0]


def _tiled_rule(ids: tuple[Ids, Ids], unit: bool, columns: bool, by_keys: bool) -> Rule:
    """`_tiled.py`, as a rule of the tape; keys have a gradient if it is wanted."""

    def pullback(residuals: Sequence[Any], upstream: Any) -> tuple[Array | None, ...]:
        queries, keys, scale, kept, *divisors = residuals
        row, column = sides(upstream, *divisors)
        pairs = kept or _tiled.Pairs(queries, keys, float(scale), ids, unit)
        grads = _tiled.backward(pairs, row, column, by_keys)
        return *grads, scale_gradient(queries, keys, grads[0], scale)

    def rule(queries: Array, keys: Array | None, scale: Any) -> tuple[Any, Any, Pullback]:
        pairs = _tiled.Pairs(queries, keys, float(scale), ids, unit)
        (row, row_divisor), (column, column_divisor) = _tiled.forward(pairs, columns)
        kept = pairs if pairs.alone else None
        residuals = queries, keys, scale, kept, row_divisor, column_divisor
        return joined(row, column), residuals, pullback

    return rule


def _dense_rule(ids: tuple[Ids, Ids], unit: bool, columns: bool, by_keys: bool) -> Rule:
    """The matrix form: n^2 scores at once."""
    del unit, by_keys  # the maximum of a row is at hand

    def scores(queries: Array, keys: Array | None, scale: Any) -> Array:
        others = queries if keys is None else keys
        found = np.empty((len(queries), len(others)), queries.dtype)
        similarities(queries, others, found)
        found *= queries.dtype.type(scale)
        left = as_ids(ids[0], queries)
        right = left if keys is None else as_ids(ids[1], keys)
        found[left[:, None] == right] = -math.inf
        return found

    def pullback(residuals: Sequence[Any], upstream: Any) -> tuple[Array | None, ...]:
        queries, keys, scale, row_lse, column_lse = residuals
        row, column = sides(upstream, row_lse, column_lse)
        found = scores(queries, keys, scale)
        weight = np.exp(found - proper(row[1])[:, None]) * row[0][:, None]
        if column is not None:
            weight += np.exp(found - proper(column[1])) * column[0]
        weight *= queries.dtype.type(scale)
        if keys is None:
            grad = weight @ queries + weight.T @ queries
            return grad, None, scale_gradient(queries, keys, grad, scale)
        grad = weight @ keys
        return grad, weight.T @ queries, scale_gradient(queries, keys, grad, scale)

    def rule(queries: Array, keys: Array | None, scale: Any) -> tuple[Any, Any, Pullback]:
        found = scores(queries, keys, scale)
        row_lse = logsumexp(found, 1)
        column_lse = logsumexp(found, 0) if columns else None
        return joined(row_lse, column_lse), (queries, keys, scale, row_lse, column_lse), pullback

    return rule


def logsumexp(scores: Array, axis: int) -> Array:
    """Log-sum-exp below the maximum; -inf for a row without any pair."""
    top = scores.max(axis)
    shift = np.where(top == -math.inf, 0, top)
    lse: Array = shift + np.log(np.exp(scores - np.expand_dims(shift, axis)).sum(axis))
    return lse


def joined(row_lse: Array, column_lse: Array | None) -> Array:
    """Those of the rows, then those of the columns if they were asked for."""
    return row_lse if column_lse is None else np.concatenate((row_lse, column_lse))


def proper(lse: Array) -> Array:
    """inf for -inf, so that a row without any pair has weights exp(-inf - inf) = 0."""
    return np.where(lse == -math.inf, math.inf, lse)


def as_ids(ids: Ids, rows: Array) -> Array:
    """The ids that a period stands for: 0 ... P-1, over and over."""
    return np.arange(len(rows)) % ids if isinstance(ids, int) else np.asarray(ids)
