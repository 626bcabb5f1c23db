"""The hot operation under PyTorch's transforms: tracing, `torch.func`, forward mode.

The closed form of the eager path is plain Python around autograd, which a transform can't see into.
Here the operation is an `autograd.Function` of the kind that transforms know how to apply, around
the operators of `operators.py`:

    PairLogsumexp    forward: the operator, tile by tile      backward: PairGradients
    PairGradients    forward: the operator, tile by tile      backward: through the dense form

Dynamo is given the first as a single node (`nodes.py`).
Forward mode is served by PyTorch's own operations on strips of rows: a rule of forward mode on the
functions would be lost when such derivatives are nested (PyTorch's issue 197867: a tangent that is
silently zero).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ntxent._pairs.sides import scale_gradient
from ntxent.torch._pairs.dense import dense
from ntxent.torch._transforms import operators

NOT_ACROSS = (
    '{} of a loss across processes isn\'t served by tiles or kernels; use implementation="dense".'
)


class PairLogsumexp(torch.autograd.Function):
    """The log-sum-exps, and what the backward pass divides by."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor]:
        value, divisor = operators.pair_logsumexp(*inputs)
        return value, divisor

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        queries, keys, scale, query_ids, key_ids, *ctx.options = inputs
        _, divisor = output
        ctx.mark_non_differentiable(divisor)
        ctx.save_for_backward(queries, keys, scale, query_ids, key_ids, divisor)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, scale, query_ids, key_ids, divisor = ctx.saved_tensors
        by_keys = keys is not None and ctx.needs_input_grad[1]
        by_query, *by_key, by_scale = PairGradients.apply(
            queries, keys, scale, query_ids, key_ids, *ctx.options, divisor, upstream[0], by_keys
        )
        others = (None,) * (2 + len(ctx.options))
        return by_query, by_key[0] if by_key else None, by_scale, *others


class PairGradients(torch.autograd.Function):
    """The gradients of queries, of keys if they are wanted, and of the scale."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> tuple[Any, ...]:
        queries, keys, scale, *_, by_keys = inputs
        by_query, by_key = operators.pair_gradients(*inputs)
        by_scale = scale_gradient(queries, keys, by_query, scale)
        return (by_query, by_key, by_scale) if by_keys else (by_query, by_scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        del output
        queries, keys, scale, query_ids, key_ids, *ctx.options, _, upstream, ctx.by_keys = inputs
        ctx.save_for_backward(queries, keys, scale, query_ids, key_ids, upstream)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, scale, query_ids, key_ids, g = ctx.saved_tensors
        period, _, columns, _, _, group, *_ = ctx.options
        if group:
            raise NotImplementedError(NOT_ACROSS.format("a second derivative"))
        gradients = gradients_of(dense_value(query_ids, key_ids, period, columns), ctx.by_keys)
        inputs = queries, keys, scale, g
        by_query, by_key, by_scale, by_g = vjp_of(gradients, inputs, upstream)
        others = (None,) * (3 + len(ctx.options))
        return by_query, by_key, by_scale, *others, by_g, None


Value = Callable[[Tensor, "Tensor | None", Tensor], Tensor]
Gradients = Callable[..., tuple[Tensor, ...]]


def dense_value(
    query_ids: Tensor | None, key_ids: Tensor | None, period: int, columns: bool
) -> Value:
    """The dense form of queries, keys and scale."""
    own = period if query_ids is None else query_ids
    return lambda queries, keys, scale: dense(queries, keys, scale, own, key_ids, columns)


def gradients_of(value: Value, by_keys: bool) -> Gradients:
    """What `PairGradients` returns, as a function of queries, keys, scale and the upstream."""

    def gradients(queries: Tensor, keys: Tensor | None, scale: Tensor, g: Tensor) -> Any:
        by_query, by_key, by_scale = vjp_of(value, (queries, keys, scale), g)
        return (by_query, by_key, by_scale) if by_keys else (by_query, by_scale)

    return gradients


def vjp_of(function: Any, inputs: Any, upstream: Any) -> list[Any]:
    """The gradients of a function of tensors, None for an input that is None."""
    given = [x for x in inputs if x is not None]
    found = iter(torch.func.vjp(filling(function, inputs), *given)[1](upstream))
    return [None if x is None else next(found) for x in inputs]


def filling(function: Any, inputs: Any) -> Any:
    """A function of those inputs alone that aren't None."""

    def of_given(*given: Tensor) -> Any:
        left = iter(given)
        return function(*(None if x is None else next(left) for x in inputs))

    return of_given
