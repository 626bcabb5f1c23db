"""The hot operation in PyTorch, and which implementation serves.

`dense` (`_dense.py`) is the matrix form under plain autograd: O(n^2) memory.
`tiled` (`_tiled.py`) never holds the matrix: O(n d) memory and a bounded store of tiles. A batch of
one tile is served without the loop (`_matrix.py`).
`triton` (`_triton.py`) does the same on a CUDA GPU, where no tile leaves the chip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ntxent._pairs import Side, scale_gradient, sides, two_sides
from ntxent._tape import Pullback, Rule, Traced
from ntxent.torch import _matrix, _tiled
from ntxent.torch._dense import dense
from ntxent.torch._tile import Found, Pairs

IMPLEMENTATIONS: tuple[str, ...] = ("dense", "tiled")


class Implementation(Protocol):
    """What the modules of the closed form have in common."""

    def forward(self, pairs: Pairs, *, keep: bool) -> tuple[Found, Found | None, list[Tensor]]:
        """What is found along rows and (if asked) columns; what is kept for the backward pass."""

    def backward(
        self, pairs: Pairs, row: Side, column: Side | None, kept: Sequence[Tensor], by_keys: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The gradients of queries and (if wanted) keys; without keys one, of both together."""


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
    if implementation == "dense":
        return dense(queries, keys, scale, query_ids, key_ids, columns)
    inputs = (queries, keys, scale)
    traced = [x for x in inputs if type(x) is Traced]
    rule = closed_form((query_ids, key_ids), unit, columns, type(keys) is Traced, bool(traced))
    return traced[0].tape.apply(rule, inputs) if traced else rule(*inputs)[0]


def serving(queries: Tensor, keys: Tensor | None) -> Implementation:
    """One tile or many."""
    rows = max(queries.shape[0], 0 if keys is None else keys.shape[0])
    return _matrix if rows <= _tiled.TILE else _tiled


def closed_form(ids: Any, unit: bool, columns: bool, by_keys: bool, keep: bool) -> Rule:
    """The operation as a rule of the tape; keys have a gradient if it is wanted."""

    def pullback(residuals: Any, upstream: Any) -> tuple[Tensor | None, ...]:
        queries, keys, scale, row_divisor, column_divisor, *kept = residuals
        pairs = Pairs(queries, keys, scale, ids, unit, columns)
        row, column = sides(upstream, row_divisor, column_divisor)
        grads = serving(queries, keys).backward(pairs, row, column, kept, by_keys)
        return *grads, scale_gradient(queries, keys, grads[0], scale)

    def rule(queries: Tensor, keys: Tensor | None, scale: Any) -> tuple[Any, Any, Pullback]:
        pairs = Pairs(queries, keys, scale, ids, unit, columns)
        row, column, kept = serving(queries, keys).forward(pairs, keep=keep)
        value, divisors = joined(row, column)
        return value, (queries, keys, scale, *divisors, *kept), pullback

    return rule


def joined(row: Found, column: Found | None) -> tuple[Tensor, tuple[Tensor, Tensor | None]]:
    """The log-sum-exps of rows, then of columns if they were asked for; and both divisors."""
    if column is None:
        return row.lse, (row.divisor, None)
    return torch.cat((row.lse, column.lse)), (row.divisor, column.divisor)
