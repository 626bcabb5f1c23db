"""A batch of one tile: log-sum-exp and its closed-form gradient on the whole matrix.

The same mathematics as `tiled.py` without its loop, for batches where the loop's bookkeeping
would cost more than the tile.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ntxent._pairs import headroom
from ntxent._pairs.sides import Side
from ntxent.torch._pairs.excluded import exclusion
from ntxent.torch._pairs.tile import Found, Pairs, filled_, found, prepared, weights


def forward(pairs: Pairs, *, keep: bool) -> tuple[Found, Found | None, list[Tensor]]:
    """What is found along rows and (if asked) columns, and the tile for the backward pass."""
    shifted = pairs.shifted()
    values, empties = filled(pairs, shifted)
    row = along(values, 1, shifted, empties)
    column = along(values, 0, shifted, empties) if pairs.columns else None
    return row, column, [values] if keep else []


def filled(pairs: Pairs, shifted: bool) -> tuple[Tensor, bool]:
    """The scores, their exponentials if unshifted; and whether a row may have no pair."""
    queries, keys = pairs.queries, pairs.others
    scores = queries.new_empty(queries.shape[0], keys.shape[0])
    excluded = exclusion(pairs.ids, *scores.shape)
    filled_(scores, queries, keys, float(pairs.scale), shifted, excluded)
    return scores, excluded.empties


def along(values: Tensor, dim: int, shifted: bool, empties: bool) -> Found:
    """From the exponentials of the scores, or from the scores if shifted."""
    if shifted:
        return found(values.logsumexp(dim), None, empties)
    sums = values.sum(dim)
    return found(sums.log(), sums, empties)


def backward(
    pairs: Pairs, row: Side, column: Side | None, kept: Sequence[Tensor], by_keys: bool
) -> tuple[Tensor, Tensor | None]:
    """The gradients of queries and (if wanted) keys; without keys one, of both together."""
    queries, keys, scale, shifted = pairs.queries, pairs.keys, float(pairs.scale), pairs.shifted()
    tile = kept[0] if kept else filled(pairs, shifted)[0]
    row = prepared(row, scale, shifted)
    if keys is None:
        column = row
    elif column is not None:
        column = prepared(column, scale, shifted)
    weight = weights(tile, row, column, shifted)
    factor = headroom.weight_scale(scale, shifted)
    grad = torch.addmm(queries, weight, pairs.others, beta=0, alpha=factor)
    if keys is None or not by_keys:
        return grad, None
    return grad, torch.addmm(keys, weight.T, queries, beta=0, alpha=factor)
