"""The matrix form: n^2 scores at once, every derivative by PyTorch itself."""

from __future__ import annotations

import math

import torch
from torch import Tensor

STRIP = 256  # rows


def dense(
    queries: Tensor,
    keys: Tensor | None,
    scale: float | Tensor,
    query_ids: Tensor | int,
    key_ids: Tensor | int | None,
    columns: bool,
) -> Tensor:
    """See `ntxent._protocol.Ops.pair_logsumexp`."""
    keys = queries if keys is None else keys
    key_ids = query_ids if key_ids is None else key_ids
    same = as_ids(query_ids, queries)[:, None] == as_ids(key_ids, keys)
    scores = (queries * scale) @ keys.T
    rows = masked_logsumexp(scores, same, 1)
    return torch.cat((rows, masked_logsumexp(scores, same, 0))) if columns else rows


def strips(
    queries: Tensor,
    keys: Tensor | None,
    scale: float | Tensor,
    query_ids: Tensor | int,
    key_ids: Tensor | int | None,
    columns: bool,
) -> Tensor:
    """The same, one strip of rows at a time: where nothing is kept, in O(n) memory."""
    keys = queries if keys is None else keys
    own = as_ids(query_ids, queries)
    others = as_ids(query_ids if key_ids is None else key_ids, keys)
    rows = [
        dense(strip, keys, scale, ids, others, False)
        for strip, ids in zip(queries.split(STRIP), own.split(STRIP), strict=True)
    ]
    if columns:
        rows.append(strips(keys, queries, scale, others, own, False))
    return torch.cat(rows)


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
