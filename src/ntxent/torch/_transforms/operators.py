"""The hot operation and its gradient as operators of `torch.library`, opaque to tracers.

A tracer (`torch.compile`, `torch.export`, `torch.func`) sees one call of known shapes where it
would otherwise unroll the loop over tiles. They have no derivative: that is `functions.py`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ntxent._labels import Classes, classes
from ntxent._pairs.sides import sides
from ntxent.torch._pairs.tile import Pairs
from ntxent.torch._processes.group import Group
from ntxent.torch._processes.shards import serving_across


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
    group: str,
    exchange: str | None,
    processes: int,
    rank: int,
    even: bool,
) -> tuple[Tensor, Tensor]:
    """Log-sum-exps, and what the backward pass divides exponentials by: rows, then columns.

    Without ids the period stands for them; with a group, rows are over the keys of all processes.
    """
    pairs = Pairs(queries, keys, scale, ids(query_ids, key_ids, period), unit, columns, product)
    across = Group.named(group, exchange, processes, rank, even)
    served = serving_across(pairs, implementation, across)
    row, column, _ = served.forward(pairs, keep=False)
    value, divisor = row if column is None else map(torch.cat, zip(row, column, strict=True))
    # Operators may not return one memory twice: shifted, the divisor is the value.
    return value, divisor.clone() if divisor is value else divisor


@pair_logsumexp.register_fake
def _(queries: Any, keys: Any, *options: Any) -> tuple[Tensor, Tensor]:
    _, _, _, _, _, columns, _, _, group, *_ = options
    rows = queries.shape[0]
    if columns:
        rows = rows + (queries if keys is None else keys).shape[0]
    return queries.new_empty(rows), queries.new_empty(rows, dtype=torch.float64 if group else None)


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
    group: str,
    exchange: str | None,
    processes: int,
    rank: int,
    even: bool,
    divisor: Tensor,
    upstream: Tensor,
    by_keys: bool,
) -> tuple[Tensor, Tensor]:
    """The gradients of queries and keys; of keys none, (0, d), if they aren't asked for."""
    pairs = Pairs(queries, keys, scale, ids(query_ids, key_ids, period), unit, columns, product)
    across = Group.named(group, exchange, processes, rank, even)
    served = serving_across(pairs, implementation, across)
    rows = queries.shape[0]
    row, column = sides(upstream, divisor[:rows], divisor[rows:] if columns else None)
    with torch.autocast(queries.device.type, enabled=False):  # as in the eager path's backward
        by_query, by_key = served.backward(pairs, row, column, (), by_keys)
    return by_query, queries.new_empty(0, queries.shape[1]) if by_key is None else by_key


@pair_gradients.register_fake
def _(queries: Any, keys: Any, *options: Any) -> tuple[Tensor, Tensor]:
    *_, by_keys = options
    by_key = torch.empty_like(keys) if by_keys else queries.new_empty(0, queries.shape[1])
    return torch.empty_like(queries), by_key


@torch.library.custom_op("ntxent::process_mean", mutates_args=())
def process_mean(
    value: Tensor, group: str, exchange: str | None, processes: int, rank: int, even: bool
) -> Tensor:
    """The mean over the processes of a 0-d tensor."""
    told = Group(group, exchange, processes, rank, even).all_gathered(value.reshape(1))
    return told.mean().to(value.device)


@process_mean.register_fake
def _(value: Any, *across: Any) -> Tensor:
    del across
    return torch.empty_like(value)


@torch.library.custom_op("ntxent::process_classes", mutates_args=())
def process_classes(
    labels: Tensor, group: str, exchange: str | None, processes: int, rank: int, even: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The `Classes` of own labels among those of all processes."""
    across = Group(group, exchange, processes, rank, even)
    ordered = across.everyone(labels).sort().values
    return classes(torch, labels, ordered, Tensor.double, across.row_ids(labels))


@process_classes.register_fake
def _(labels: Any, *across: Any) -> Any:
    del across
    number = torch.empty_like(labels)
    kinds = {"others": torch.float64, "within": torch.bool, "anchors": torch.float64}
    return tuple(number.new_empty(number.shape, dtype=kinds.get(x)) for x in Classes._fields)


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


for operator in (pair_logsumexp, pair_gradients, process_mean, process_classes):
    operator.register_vmap(partial(one_by_one, operator))


def ids(query_ids: Tensor | None, key_ids: Tensor | None, period: int) -> Any:
    """As `Pairs` has them: tensors, or a period."""
    return (period, None) if query_ids is None else (query_ids, key_ids)
