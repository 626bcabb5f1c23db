"""The matrix form over the keys of all processes: every derivative by PyTorch itself."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ntxent.torch._pairs.dense import dense
from ntxent.torch._processes.group import Group


def dense_across(
    across: Group,
    queries: Tensor,
    keys: Tensor | None,
    scale: float | Tensor,
    query_ids: Tensor,
    key_ids: Tensor | None,
    columns: bool,
) -> Tensor:
    """See `ntxent._protocol.Ops.pair_logsumexp`."""
    across = across._replace(exchange="gather")
    own = queries if keys is None else keys
    own_ids = query_ids if key_ids is None else key_ids

    def rows(queries: Tensor, ids: Tensor, others: Tensor, other_ids: Tensor) -> Tensor:
        everyone, all_ids = (Gathered.apply(x, across) for x in (others, other_ids))
        return dense(queries, everyone, scale, ids, all_ids, False)

    lse = rows(queries, query_ids, own, own_ids)
    return torch.cat((lse, rows(own, own_ids, queries, query_ids))) if columns else lse


class Gathered(torch.autograd.Function):
    """The rows of all processes; the gradient of a shard is the sum of what all have for it."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, across: Group) -> Tensor:
        ctx.across, ctx.sizes = across, across.sizes(rows)
        return across.everyone(rows)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        return Summed.apply(upstream[0], ctx.across, ctx.sizes), None


class Summed(torch.autograd.Function):
    """This process's rows of the sum over processes: the transpose of `Gathered`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, across: Group, sizes: list[int]) -> Tensor:
        ctx.across = across
        total = rows.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=across.handle)
        own: Tensor = total.split(sizes)[across.rank].clone()
        return own

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        return Gathered.apply(upstream[0], ctx.across), None, None
