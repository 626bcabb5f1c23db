"""The hot operation in PyTorch, and which implementation serves.

`dense` is the matrix form under plain autograd: O(n^2) memory, every derivative.
`tiled` (`_tiled.py`) never holds the matrix: O(n d) memory and a bounded store of tiles.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ntxent._pairs import scale_gradient, sides, two_sides
from ntxent._tape import Pullback, Rule, Traced
from ntxent.torch import _matrix, _tiled
from ntxent.torch._tile import Found

IMPLEMENTATIONS: tuple[str, ...] = ("dense", "tiled")


def pair_logsumexp(
    queries: Any,
    keys: Any | None,
    scale: Any,
    query_ids: Tensor | int,
    key_ids: Tensor | int | None,
    *,
    unit: bool,
    columns: bool = False,
    implementation: str | None = None,
) -> Any:
    """See `ntxent._formula.Ops.pair_logsumexp`."""
    keys, key_ids = two_sides(queries, keys, query_ids, key_ids, columns)
    traced = [x for x in (queries, keys, scale) if type(x) is Traced]
    if implementation == "dense":
        return dense(queries, keys, scale, query_ids, key_ids, columns)

    ids, inputs = (query_ids, key_ids), (queries, keys, scale)
    if max(queries.shape[0], 0 if keys is None else keys.shape[0]) <= _tiled.TILE:
        rule = _matrix_rule(ids, unit, columns, type(keys) is Traced)
    else:
        rule = _tiled_rule(ids, unit, columns, type(keys) is Traced, keep=bool(traced))
    return traced[0].tape.apply(rule, inputs) if traced else rule(*inputs)[0]


def _matrix_rule(ids: Any, unit: bool, columns: bool, by_keys: bool) -> Rule:
    """One tile, `_matrix.py`, as a rule of the tape; keys have a gradient if it is wanted."""

    def pullback(residuals: Any, upstream: Any) -> tuple[Tensor | None, ...]:
        queries, keys, scale, row_divisor, column_divisor, tile = residuals
        row, column = sides(upstream, row_divisor, column_divisor)
        grads = _matrix.backward(queries, keys, float(scale), unit, row, column, tile, by_keys)
        return *grads, scale_gradient(queries, keys, grads[0], scale)

    def rule(queries: Tensor, keys: Tensor | None, scale: Any) -> tuple[Any, Any, Pullback]:
        row, column, tile = _matrix.forward(queries, keys, float(scale), ids, unit, columns)
        value, divisors = joined(row, column)
        return value, (queries, keys, scale, *divisors, tile), pullback

    return rule


def _tiled_rule(ids: Any, unit: bool, columns: bool, by_keys: bool, keep: bool) -> Rule:
    """Many tiles, `_tiled.py`, as a rule of the tape."""

    def pullback(residuals: Any, upstream: Any) -> tuple[Tensor | None, ...]:
        queries, keys, scale, row_divisor, column_divisor, *kept = residuals
        row, column = sides(upstream, row_divisor, column_divisor)
        pairs = _tiled.Pairs(queries, keys, float(scale), ids, unit)
        grads = _tiled.backward(pairs, row, column, kept, by_keys)
        return *grads, scale_gradient(queries, keys, grads[0], scale)

    def rule(queries: Tensor, keys: Tensor | None, scale: Any) -> tuple[Any, Any, Pullback]:
        pairs = _tiled.Pairs(queries, keys, float(scale), ids, unit)
        row, column, kept = _tiled.forward(pairs, columns=columns, keep=keep)
        value, divisors = joined(row, column)
        return value, (queries, keys, scale, *divisors, *kept), pullback

    return rule


def joined(row: Found, column: Found | None) -> tuple[Tensor, tuple[Tensor, Tensor | None]]:
    """The log-sum-exps of rows, then of columns if they were asked for; and both divisors."""
    if column is None:
        return row.lse, (row.divisor, None)
    return torch.cat((row.lse, column.lse)), (row.divisor, column.divisor)


def dense(
    queries: Tensor,
    keys: Tensor | None,
    scale: float | Tensor,
    query_ids: Tensor | int,
    key_ids: Tensor | int | None,
    columns: bool,
) -> Any:
    """The matrix form: n^2 scores at once, derivatives by autograd."""
    keys = queries if keys is None else keys
    key_ids = query_ids if key_ids is None else key_ids
    same = as_ids(query_ids, queries)[:, None] == as_ids(key_ids, keys)
    scores = (queries * scale) @ keys.T
    rows = masked_logsumexp(scores, same, 1)
    return torch.cat((rows, masked_logsumexp(scores, same, 0))) if columns else rows


def masked_logsumexp(scores: Tensor, excluded: Tensor, dim: int) -> Tensor:
    """Over the pairs that are not excluded; -inf, with no derivative of any order, without any."""
    empty = excluded.all(dim)
    lse = scores.masked_fill(excluded & ~empty.unsqueeze(dim), -math.inf).logsumexp(dim)
    return lse.masked_fill(empty, -math.inf)


def as_ids(ids: Tensor | int, rows: Tensor) -> Tensor:
    """The ids that a period stands for: 0 ... P-1, over and over."""
    if isinstance(ids, Tensor):
        return ids
    return torch.arange(rows.shape[0], device=rows.device) % ids
