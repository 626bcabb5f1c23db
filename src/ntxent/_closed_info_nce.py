"""InfoNCE in closed form: two towers, one direction or both, and negatives of no pair."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ntxent import _row_stage
from ntxent._closed import Call, Closed
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
    rows, lengths = call.rows(arrays[:2])
    query, key = ops.parts(rows, 2)
    scale = ops.inverse(temperature, rows)
    near, far, far_saved = call.pairs(pair_ids, pair_ids, symmetric), None, None
    lses, kept = near.forward(query, key, scale, call.differentiated)
    if len(arrays) == 3:
        far = far_pairs(call, query, arrays[2], pair_ids, far_ids)
        lses[0], far_saved = with_far(call, far, query, arrays[2], scale, lses[0])
    lse, dot = ops.xp.stack(lses) if symmetric else lses[0], ops.row_dot(query, key)
    stage = _row_stage.contrast(ops, lse, dot, scale, call.differentiated)
    value, factor = call.reduced(stage.losses, rows.dtype)
    if not call.differentiated:
        return Closed(value)
    counts = [2] if call.needs[2] else [1, 1]
    counts += [1] * (len(arrays) - 2)

    def pullback(saved: Any, upstream: Any) -> list[Array | None]:
        rows, lengths, scale, push, factor, kept, far_saved = saved
        push = push * (upstream * factor)
        pushes, pull = (list(push), push.sum(0)) if symmetric else ([push], push)
        query, key = ops.parts(rows, 2)
        by_far: list[Array | None] = []
        grad, towers = of_pairs(call, rows, pull * -scale)
        if far is not None:
            pushes[0], grad_far = through_far(
                call, far, query, scale, far_saved, pushes[0], towers[0]
            )
            by_far = [grad_far]
        near.backward(query, key, scale, kept, pushes, *towers)
        if towers[1] is None:
            rows, lengths = query, None if lengths is None else ops.parts(lengths, 2)[0]
        grad, dots = call.to_inputs(grad, rows, lengths)
        if towers[1] is not None and call.needs[0]:
            dots = ops.parts(dots, 2)[0]  # of the queries: far pairs have no key of the batch
        by_towers = [grad, None] if towers[1] is None else [grad]
        return [call.by_temperature(dots, scale), *by_towers, *by_far]

    saved = rows, lengths, scale, stage.push, factor, kept, far_saved
    return Closed(value, saved, pullback, counts)


def of_pairs(call: Call, rows: Array, pull: Array) -> tuple[Array, Sequence[Array | None]]:
    """The gradient of sum pull_i q_i . k_i in new memory, and its halves; None for no key's."""
    ops, column = call.ops, call.ops.column(pull)
    if not call.needs[2]:
        grad = column * ops.parts(rows, 2)[1]
        return grad, (grad, None)
    size = pull.shape[0]
    grad = ops.roll(rows, size)  # keys, then queries
    both = grad.reshape(2, size, -1)
    both *= column
    return grad, ops.parts(grad, 2)


def far_pairs(
    call: Call, query: Array, negatives: Array, pair_ids: Array | int, far_ids: Array | None
) -> Any:
    """The operation on queries and negatives: of each query's own, or shared by all."""
    if len(negatives.shape) == 3:
        return OwnPairs(call.ops)
    if far_ids is None:  # a queue has nothing to do with the batch: no pair is left out
        return call.pairs(call.ops.one_id(query, 0), call.ops.one_id(negatives, 1))
    return call.pairs(pair_ids, far_ids)


def with_far(
    call: Call, far: Any, query: Array, negatives: Array, scale: Any, near: Array
) -> tuple[Array, Any]:
    """The log-sum-exp over near and far pairs, and what `through_far` needs."""
    xp = call.ops.xp
    rows, lengths = call.rows([negatives])
    (lse,), kept = far.forward(query, rows, scale, call.differentiated)
    both = xp.logaddexp(near, lse)
    if not call.differentiated:
        return both, None
    total = xp.where(both == -math.inf, math.inf, both)  # of nothing at all
    return both, (rows, lengths, kept, xp.exp(near - total), xp.exp(lse - total))


def through_far(
    call: Call, far: Any, query: Array, scale: Any, saved: Any, push: Array, grad_query: Array
) -> tuple[Array, Array | None]:
    """The near pairs' part of the weight, and the gradient of negatives; adds to the queries'."""
    rows, lengths, kept, near_share, far_share = saved
    grad = call.ops.xp.zeros_like(rows) if call.needs[3] else None
    far.backward(query, rows, scale, kept, [push * far_share], grad_query, grad)
    if grad is not None:
        grad, _ = call.to_inputs(grad, rows, lengths)
    return push * near_share, grad


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
        grad_queries: Array,
        grad_keys: Array | None,
    ) -> None:
        """Add the gradients to those that are there."""
        logits, lse = kept
        weight = self.ops.xp.exp(logits - self.ops.column(lse)) * self.ops.column(upstream[0])
        weight = weight * scale
        grad_queries += (weight[:, None] @ keys)[:, 0]
        if grad_keys is not None:
            grad_keys += weight[:, :, None] * queries[:, None]
