"""A batch of one tile: log-sum-exp and its closed-form gradient on the whole matrix.

The same mathematics as `_tiled.py` without its loop, for batches where the loop's bookkeeping
would cost more than the tile.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ntxent import _range
from ntxent._pairs import Side
from ntxent.torch._exclusion import Ids, exclusion
from ntxent.torch._tile import prepared, weights


def forward(
    queries: Tensor,
    keys: Tensor | None,
    scale: float,
    ids: Ids,
    unit: bool,
    columns: bool,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """The row and (if asked) column log-sum-exps, and the tile for the backward pass."""
    keys = queries if keys is None else keys
    scores = F.linear(queries * scale, keys)
    exclusion(ids, *scores.shape).fill_(scores, 0, 0)
    if _range.needs_shift(queries.element_size(), scale, keys.shape[0], unit):
        return scores.logsumexp(1), scores.logsumexp(0) if columns else None, scores
    scores.exp_()
    return scores.sum(1).log_(), scores.sum(0).log_() if columns else None, scores


def backward(
    queries: Tensor,
    keys: Tensor | None,
    scale: float,
    unit: bool,
    row: Side,
    column: Side | None,
    tile: Tensor,
) -> tuple[Tensor, Tensor | None]:
    """The gradients of queries and keys; without keys one gradient, of both together."""
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
    if keys is None:
        return grad, None
    return grad, torch.addmm(keys, weight.T, queries, beta=0, alpha=factor)
