"""The hot operation and its gradient as operators of `torch.library`, opaque to tracers.

A tracer (`torch.compile`, `torch.export`, `torch.func`) sees one call of known shapes where it
would otherwise unroll the loop over tiles. They have no derivative: that is `functions.py`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ntxent._labels import Classes, classes
from ntxent._pairs.sides import sides
from ntxent.torch._pairs.implementations import Implementation
from ntxent.torch._pairs.tile import Pairs
from ntxent.torch._processes.group import Group
from ntxent.torch._processes.shards import serving_across

# Of symbolic sizes "int" would make a graph for each; what Python calls int is SymInt.
GROUP = "str group, str? exchange, SymInt processes, SymInt rank, bool even"
PAIRS = (
    "Tensor queries, Tensor? keys, Tensor scale, Tensor? query_ids, Tensor? key_ids, "
    f"SymInt period, bool unit, bool columns, str? implementation, ScalarType? product, {GROUP}"
)


class Operands(NamedTuple):
    """`PAIRS`: without ids the period stands for them; the last five are a `Group`, or none."""

    queries: Tensor
    keys: Tensor | None
    scale: Tensor
    query_ids: Tensor | None
    key_ids: Tensor | None
    period: int
    unit: bool
    columns: bool
    implementation: str | None
    product: torch.dtype | None
    group: str
    exchange: str | None
    processes: int
    rank: int
    even: bool

    def served(self) -> tuple[Pairs, Implementation]:
        """The pairs, and what serves them; with a group, over the keys of all its processes."""
        ids = (self.period, None) if self.query_ids is None else (self.query_ids, self.key_ids)
        given = self.queries, self.keys, self.scale, ids, self.unit, self.columns, self.product
        group = self.group, self.exchange, self.processes, self.rank, self.even
        pairs = Pairs(*given)
        return pairs, serving_across(pairs, self.implementation, Group.named(*group))


@torch.library.custom_op(
    "ntxent::pair_logsumexp", mutates_args=(), schema=f"({PAIRS}) -> (Tensor, Tensor)"
)
def pair_logsumexp(*call: Any) -> tuple[Tensor, Tensor]:
    """Log-sum-exps, and what the backward pass divides exponentials by: rows, then columns."""
    pairs, served = Operands(*call).served()
    row, column, _ = served.forward(pairs, keep=False)
    value, divisor = row if column is None else map(torch.cat, zip(row, column, strict=True))
    # Operators may not return one memory twice: shifted, the divisor is the value.
    return value, divisor.clone() if divisor is value else divisor


@pair_logsumexp.register_fake
def _(*inputs: Any) -> tuple[Tensor, Tensor]:
    call = Operands(*inputs)
    queries, rows = call.queries, call.queries.shape[0]
    if call.columns:
        rows = rows + (queries if call.keys is None else call.keys).shape[0]
    wide = torch.float64 if call.group else None
    return queries.new_empty(rows), queries.new_empty(rows, dtype=wide)


@torch.library.custom_op(
    "ntxent::pair_gradients",
    mutates_args=(),
    schema=f"({PAIRS}, Tensor divisor, Tensor upstream, bool by_keys) -> (Tensor, Tensor)",
)
def pair_gradients(*inputs: Any) -> tuple[Tensor, Tensor]:
    """The gradients of queries and keys; of keys none, (0, d), if they aren't asked for."""
    *given, divisor, upstream, by_keys = inputs
    call = Operands(*given)
    (pairs, served), rows = call.served(), call.queries.shape[0]
    row, column = sides(upstream, divisor[:rows], divisor[rows:] if call.columns else None)
    with torch.autocast(divisor.device.type, enabled=False):  # as in the eager path's backward
        by_query, by_key = served.backward(pairs, row, column, (), by_keys)
    return by_query, by_query.new_empty(0, by_query.shape[1]) if by_key is None else by_key


@pair_gradients.register_fake
def _(queries: Any, keys: Any, *options: Any) -> tuple[Tensor, Tensor]:
    *_, by_keys = options
    by_key = torch.empty_like(keys) if by_keys else queries.new_empty(0, queries.shape[1])
    return torch.empty_like(queries), by_key


@torch.library.custom_op(
    "ntxent::process_mean", mutates_args=(), schema=f"(Tensor value, {GROUP}) -> Tensor"
)
def process_mean(value: Tensor, *group: Any) -> Tensor:
    """The mean over the processes of a 0-d tensor."""
    told = Group(*group).all_gathered(value.reshape(1))
    return told.mean().to(value.device)


@process_mean.register_fake
def _(value: Any, *across: Any) -> Tensor:
    del across
    return torch.empty_like(value)


@torch.library.custom_op(
    "ntxent::process_classes",
    mutates_args=(),
    schema=f"(Tensor labels, {GROUP}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def process_classes(labels: Tensor, *group: Any) -> tuple[Tensor, ...]:
    """The `Classes` of own labels among those of all processes."""
    across = Group(*group)
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
