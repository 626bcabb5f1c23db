"""A batch of one tile: log-sum-exp and its closed-form gradient on the whole matrix.

The same mathematics as `_tiled.py` without its loop, for batches where the loop's bookkeeping
would cost more than the tile.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ntxent import _range
from ntxent._pairs import Side
from ntxent.torch._exclusion import Ids, exclusion
from ntxent.torch._tile import Found, found, prepared, weights


def forward(
    queries: Tensor,
    keys: Tensor | None,
    scale: float,
    ids: Ids,
    unit: bool,
    columns: bool,
) -> tuple[Found, Found | None, Tensor]:
    """What is found along rows and (if asked) columns, and the tile for the backward pass."""
    keys = queries if keys is None else keys
    scores = queries.new_empty(queries.shape[0], keys.shape[0])
    torch.addmm(scores, queries, keys.T, beta=0, alpha=scale, out=scores)
    excluded = exclusion(ids, *scores.shape)
    excluded.fill_(scores, 0, 0)
    shifted = _range.needs_shift(queries.element_size(), scale, keys.shape[0], unit)
    if not shifted:
        scores.exp_()
    row = along(scores, 1, shifted, excluded.empties)
    return row, along(scores, 0, shifted, excluded.empties) if columns else None, scores


def along(values: Tensor, dim: int, shifted: bool, empties: bool) -> Found:
    """From the exponentials of the scores, or from the scores if shifted."""
    if shifted:
        return found(values.logsumexp(dim), None, empties)
    sums = values.sum(dim)
    return found(sums.log(), sums, empties)


def backward(
    queries: Tensor,
    keys: Tensor | None,
    scale: float,
    unit: bool,
    row: Side,
    column: Side | None,
    tile: Tensor,
    by_keys: bool,
) -> tuple[Tensor, Tensor | None]:
    """The gradients of queries and (if wanted) keys; without keys one, of both together."""
    others = queries if keys is None else keys
    shifted = _range.needs_shift(queries.element_size(), scale, others.shape[0], unit)
    row = prepared(row, scale, shifted)
    if keys is None:
        column = row
    elif column is not None:
        column = prepared(column, scale, shifted)
    weight = weights(tile, row, column, shifted)
    factor = _range.weight_scale(scale, shifted)
    grad = torch.addmm(queries, weight, others, beta=0, alpha=factor)
    if keys is None or not by_keys:
        return grad, None
    return grad, torch.addmm(keys, weight.T, queries, beta=0, alpha=factor)
