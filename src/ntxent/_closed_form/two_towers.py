"""InfoNCE in closed form: two towers, one direction or both, and negatives of no pair."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ntxent._closed_form import row_stage
from ntxent._closed_form.losses import Call, Closed
from ntxent._protocol import Array


def info_nce(
    call: Call,
    pair_ids: Array | int,
    far_ids: Array | None,
    symmetric: bool,
    arrays: Sequence[Array],
    temperature: Any,
) -> Closed:
    """The loss; `far_ids` are those of shared negatives, which all count if they have none."""
    ops = call.ops
    rows, lengths = call.rows(arrays[:2], sides=2)
    query, key = ops.parts(rows, 2)
    scale = ops.inverse(temperature, rows)
    near, far, far_saved = call.pairs(pair_ids, pair_ids, symmetric), None, None
    lses, kept = near.forward(query, key, scale, call.differentiated)
    if len(arrays) == 3:
        far = far_pairs(call, query, arrays[2], pair_ids, far_ids)
        lses[0], far_saved = forward_far(call, far, query, arrays[2], scale, lses[0])
    lse, dot = ops.xp.stack(lses) if symmetric else lses[0], ops.row_dot(query, key)
    stage = row_stage.contrast(ops, lse, dot, scale, call.differentiated)
    value, factor = call.reduced(stage.losses, rows.dtype)
    if not call.differentiated:
        return Closed(value)

    def pullback(saved: Any, upstream: Any) -> list[Array | None]:
        return gradients(call, near, far, symmetric, saved, upstream)

    saved = rows, lengths, scale, dot, stage.push, factor, kept, far_saved
    counts = [2] if call.needs[2] else [1, 1]
    return Closed(value, saved, pullback, counts + [1] * (len(arrays) - 2))


def gradients(
    call: Call, near: Any, far: Any, symmetric: bool, saved: Any, upstream: Any
) -> list[Array | None]:
    """Of the temperature, the towers (stacked, or the queries alone), and the negatives."""
    ops, by_key = call.ops, call.needs[2]
    rows, lengths, scale, dot, push, factor, kept, far_saved = saved
    query, key = ops.parts(rows, 2)
    wide = push * (upstream * factor)
    push = ops.cast(wide, rows.dtype)
    pushes = list(push) if symmetric else [push]
    by_far: list[Array | None] = []
    far_push = pushes[0]
    if far is not None:
        *_, near_share, _ = far_saved
        pushes[0] = far_push * near_share
    grad, grad_key = near.backward(query, key, scale, kept, pushes, by_keys=by_key)
    if far is not None:
        from_far, grad_far = backward_far(call, far, query, scale, far_saved, far_push)
        grad += from_far
        by_far = [grad_far]
    by_temperature = call.by_temperature(query, grad, 1, [wide], [dot], scale)
    column = ops.column(push.sum(0) if symmetric else push)
    grad = ops.less_product(grad, column, key, scale)
    if not by_key:
        lengths = None if lengths is None else ops.parts(lengths, 2)[0]
        return [by_temperature, call.to_inputs(grad, query, lengths), None, *by_far]
    grad_key = ops.less_product(grad_key, column, query, scale)
    towers = call.to_inputs(ops.xp.concatenate((grad, grad_key)), rows, lengths)
    return [by_temperature, towers, *by_far]


def far_pairs(
    call: Call, query: Array, negatives: Array, pair_ids: Array | int, far_ids: Array | None
) -> Any:
    """The operation on queries and negatives: of each query's own, or shared by all."""
    if len(negatives.shape) == 3:
        return OwnPairs(call.ops)
    if far_ids is None:  # a queue has nothing to do with the batch: no pair is left out
        return call.pairs(call.ops.one_id(query, 0), call.ops.one_id(negatives, 1))
    return call.pairs(pair_ids, far_ids)


def forward_far(
    call: Call, far: Any, query: Array, negatives: Array, scale: Any, near: Array
) -> tuple[Array, Any]:
    """The log-sum-exp over near and far pairs; what `backward_far` needs, with both shares."""
    xp = call.ops.xp
    rows, lengths = call.rows([negatives])
    (lse,), kept = far.forward(query, rows, scale, call.differentiated)
    both = xp.logaddexp(near, lse)
    if not call.differentiated:
        return both, None
    total = xp.where(both == -math.inf, math.inf, both)  # of nothing at all
    return both, (rows, lengths, kept, xp.exp(near - total), xp.exp(lse - total))


def backward_far(
    call: Call, far: Any, query: Array, scale: Any, saved: Any, push: Array
) -> tuple[Array, Array | None]:
    """The gradients of queries and of negatives."""
    rows, lengths, kept, _, share = saved
    by_query, grad = far.backward(query, rows, scale, kept, [push * share], by_keys=call.needs[3])
    return by_query, None if grad is None else call.to_inputs(grad, rows, lengths)


class OwnPairs:
    """Each query with keys of its own, (n, m, d): no pair meets another's."""

    def __init__(self, ops: Any) -> None:
        self.ops = ops

    def forward(
        self, queries: Array, keys: Array, scale: Any, keep: bool
    ) -> tuple[list[Array], Any]:
        """The log-sum-exps, and what the backward pass needs."""
        logits = (keys @ queries[:, :, None])[:, :, 0] * scale
        lse = self.ops.logsumexp(logits)
        return [lse], (logits, lse) if keep else ()

    def backward(
        self,
        queries: Array,
        keys: Array,
        scale: Any,
        kept: Any,
        upstream: Sequence[Array],
        by_keys: bool,
    ) -> tuple[Array, Array | None]:
        """The gradients of queries and (if wanted) keys."""
        logits, lse = kept
        weight = self.ops.xp.exp(logits - self.ops.column(lse)) * self.ops.column(upstream[0])
        weight = weight * scale
        by_query = (weight[:, None] @ keys)[:, 0]
        return by_query, weight[:, :, None] * queries[:, None] if by_keys else None
