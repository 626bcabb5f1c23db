"""For each row the sum of all rows of its group: linear, and its own transpose."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ntxent.torch import _transforms
from ntxent.torch._operators import one_by_one


def class_sums(rows: Tensor, groups: Tensor, across: Any) -> Tensor:
    """The sums, in the same order at every run; groups are 0 ... n-1."""
    if torch.compiler.is_compiling() and not _transforms.forward_mode():
        from ntxent.torch import _one_node

        found: Tensor = _one_node.class_sums(rows, groups)
        return found
    return in_order(rows, groups)


def in_order(rows: Tensor, groups: Tensor) -> Tensor:
    """By PyTorch's own operations, where they don't add in the order in which threads arrive."""
    zeros = torch.zeros_like(rows)
    if rows.is_cuda:  # where index_add takes any order
        return zeros.index_put((groups,), rows, accumulate=True)[groups]
    return zeros.index_add(0, groups, rows)[groups]


# Inductor would make atomic additions of both, in any order, on a CPU of several threads too: it is
# given one operator to call.
operator = torch.library.custom_op("ntxent::class_sums", in_order, mutates_args=())


@operator.register_fake
def _(rows: Any, groups: Any) -> Tensor:
    del groups
    return torch.empty_like(rows)


operator.register_vmap(partial(one_by_one, operator))


class ClassSums(torch.autograd.Function):
    """The operator with its derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(rows: Tensor, groups: Tensor) -> Any:
        return operator(rows, groups)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        del output
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (groups,) = ctx.saved_tensors
        return ClassSums.apply(upstream[0], groups), None
