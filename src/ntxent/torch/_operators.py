"""The hot operation and its gradient as operators of `torch.library`, opaque to tracers.

A tracer (`torch.compile`, `torch.export`, `torch.func`) sees one call of known shapes where it
would otherwise unroll the loop over tiles. They have no derivative: that is `_transforms.py`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ntxent._pairs import sides
from ntxent.torch._implementations import serving
from ntxent.torch._tile import Pairs, joined


@torch.library.custom_op("ntxent::pair_logsumexp", mutates_args=())
def pair_logsumexp(
    queries: Tensor,
    keys: Tensor | None,
    scale: Tensor,
    query_ids: Tensor | None,
    key_ids: Tensor | None,
    period: int,
    unit: bool,
    columns: bool,
    implementation: str | None,
    product: torch.dtype | None,
) -> tuple[Tensor, Tensor]:
    """Log-sum-exps, and what the backward pass divides exponentials by: rows, then columns.

    Without ids the period stands for them.
    """
    pairs = Pairs(queries, keys, scale, ids(query_ids, key_ids, period), unit, columns, product)
    found_row, found_column, _ = serving(pairs, implementation).forward(pairs, keep=False)
    value, (row, column) = joined(found_row, found_column)
    divisor = row if column is None else torch.cat((row, column))
    # Operators may not return one memory twice: shifted, the divisor is the value.
    return value, divisor.clone() if divisor is value else divisor


@pair_logsumexp.register_fake
def _(queries: Any, keys: Any, *options: Any) -> tuple[Tensor, Tensor]:
    *_, columns, _, _ = options
    rows = queries.shape[0]
    if columns:
        rows = rows + (queries if keys is None else keys).shape[0]
    return queries.new_empty(rows), queries.new_empty(rows)


@torch.library.custom_op("ntxent::pair_gradients", mutates_args=())
def pair_gradients(
    queries: Tensor,
    keys: Tensor | None,
    scale: Tensor,
    query_ids: Tensor | None,
    key_ids: Tensor | None,
    period: int,
    unit: bool,
    columns: bool,
    implementation: str | None,
    product: torch.dtype | None,
    divisor: Tensor,
    upstream: Tensor,
    by_keys: bool,
) -> tuple[Tensor, Tensor]:
    """The gradients of queries and keys; of keys none, (0, d), if they aren't asked for."""
    pairs = Pairs(queries, keys, scale, ids(query_ids, key_ids, period), unit, columns, product)
    rows = queries.shape[0]
    row, column = sides(upstream, divisor[:rows], divisor[rows:] if columns else None)
    with torch.autocast(queries.device.type, enabled=False):  # as in the eager path's backward
        by_query, by_key = serving(pairs, implementation).backward(pairs, row, column, (), by_keys)
    return by_query, queries.new_empty(0, queries.shape[1]) if by_key is None else by_key


@pair_gradients.register_fake
def _(queries: Any, keys: Any, *options: Any) -> tuple[Tensor, Tensor]:
    *_, by_keys = options
    by_key = torch.empty_like(keys) if by_keys else queries.new_empty(0, queries.shape[1])
    return torch.empty_like(queries), by_key


def one_by_one(operator: Any, info: Any, in_dims: Any, *inputs: Any) -> Any:
    """The rule of vmap: a loop over the examples."""
    both = list(zip(inputs, in_dims, strict=True))
    found = [
        operator(*(x if dim is None else x.select(dim, index) for x, dim in both))
        for index in range(info.batch_size)
    ]
    if isinstance(found[0], Tensor):
        return torch.stack(found), 0
    outputs = tuple(torch.stack(parts) for parts in zip(*found, strict=True))
    return outputs, (0,) * len(outputs)


for operator in (pair_logsumexp, pair_gradients):
    operator.register_vmap(partial(one_by_one, operator))


def ids(query_ids: Tensor | None, key_ids: Tensor | None, period: int) -> Any:
    """As `Pairs` has them: tensors, or a period."""
    return (period, None) if query_ids is None else (query_ids, key_ids)
