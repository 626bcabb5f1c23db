"""The hot operation alone, as the losses call it, differentiable by queries, keys and scale."""

from __future__ import annotations

from functools import partial
from typing import Any

from ntxent._closed_form.losses import Closed
from ntxent._spec import Options


def log_sum_exp(
    backend: Any,
    queries: Any,
    keys: Any,
    scale: Any,
    ids: Any,
    implementation: Any,
    unit: bool,
    columns: bool,
) -> Any:
    """Of rows, then of columns; `keys=None` are the queries."""
    arrays = [queries] if keys is None else [queries, keys]

    def loss(ops: Any, arrays: Any, options: Options) -> Any:
        given = arrays[0], arrays[1] if keys is not None else None, options.temperature, *ids
        return ops.pair_logsumexp(*given, options, columns)

    form = partial(closed, ids, columns)
    options = Options(scale, normalize=unit, implementation=implementation)  # not inverted here
    return backend.ops.evaluate(loss, form, arrays, options)


def closed(
    ids: Any, columns: bool, ops: Any, arrays: Any, scale: Any, options: Options, needs: Any
) -> Closed:
    """In closed form, as `ntxent._closed_form` has it."""

    def keys_of(arrays: Any) -> Any:
        """None are the queries, unless the columns have log-sum-exps of their own."""
        if len(arrays) == 2:
            return arrays[1]
        return arrays[0] if columns else None

    keys = keys_of(arrays)
    key_ids = ids[0] if keys is not None and ids[1] is None else ids[1]
    pairs = ops.closed_pairs(ids[0], key_ids, columns, options)
    lses, kept = pairs.forward(arrays[0], keys, scale, any(needs))
    value = ops.xp.concatenate(lses)
    if not any(needs):
        return Closed(value)

    def pullback(saved: Any, upstream: Any) -> Any:
        scale, kept, *arrays = saved
        keys = keys_of(arrays)
        size = arrays[0].shape[0]
        sides = [upstream[:size], upstream[size:]][: len(lses)]
        by_keys = keys is not None
        grads = pairs.backward(arrays[0], keys, scale, kept, sides, by_keys=by_keys)
        by_scale = (arrays[0] * grads[0]).sum() / scale / (1 if by_keys else 2)
        if len(arrays) == 2:
            return [by_scale, *grads]
        return [by_scale, sum(grads) if by_keys else grads[0]]

    return Closed(value, (scale, kept, *arrays), pullback, [1] * len(arrays))
