"""For each row the sum of all rows of its group: linear, and its own transpose."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ntxent.torch._processes.group import Group
from ntxent.torch._transforms.operators import GROUP, one_by_one


def in_order(rows: Tensor, groups: Tensor) -> Tensor:
    """The same for groups that are numbered 0 ... n-1."""
    return table(rows, groups, rows.shape[0])[groups]


def table(rows: Tensor, groups: Tensor, count: int) -> Tensor:
    """The sum of each group, by what doesn't add in the order in which threads arrive."""
    zeros = rows.new_zeros(count, rows.shape[1])
    if rows.device.type != "cpu":  # where index_add takes any order
        return zeros.index_put((groups,), rows, accumulate=True)
    return zeros.index_add(0, groups, rows)


# Inductor would make atomic additions of both, in any order, on a CPU of several threads too: it is
# given one operator to call.
@torch.library.custom_op(
    "ntxent::class_sums", mutates_args=(), schema=f"(Tensor rows, Tensor groups, {GROUP}) -> Tensor"
)
def operator(rows: Tensor, groups: Tensor, *group: Any) -> Tensor:
    """The same, over the rows of all processes if there is a process group."""
    across = Group.named(*group)
    if across is None:
        return in_order(rows, groups)
    total = torch.zeros_like(rows)
    for _, (others, their_groups) in across.shards(rows, groups):
        there, place = their_groups.unique(return_inverse=True)
        sums = table(others, place, len(there))
        where = torch.searchsorted(there, groups).clamp(max=len(there) - 1)
        total += sums[where].masked_fill((there[where] != groups).unsqueeze(1), 0)
    return total


@operator.register_fake
def _(rows: Any, *groups: Any) -> Tensor:
    del groups
    return torch.empty_like(rows)


operator.register_vmap(partial(one_by_one, operator))


class ClassSums(torch.autograd.Function):
    """The operator with its derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> Any:
        return operator(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        del output
        _, groups, *ctx.across = inputs
        ctx.save_for_backward(groups)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (groups,) = ctx.saved_tensors
        grad = ClassSums.apply(upstream[0], groups, *ctx.across)
        return grad, *(None,) * (1 + len(ctx.across))
