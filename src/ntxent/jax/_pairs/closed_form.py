"""A hot operation with its closed-form derivative, in reverse mode."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import Array

from ntxent._pairs.sides import Pairs, scale_gradient
from ntxent.jax._pairs.reverse_mode import reverse_only


def closed_form(
    forward: Callable[..., Any], backward: Callable[..., Any]
) -> Callable[[Any, Pairs], Array]:
    """The log-sum-exps as a function of a plan, which is known beforehand, and of pairs.

    `forward(plan, pairs, differentiated)` returns a tuple of them and of what else a gradient
    needs, if there is to be one. Of that `backward(plan, pairs, upstream, *rest)` makes the
    gradients of queries and keys. Both are compiled once for each plan, shape and dtype.
    """
    run = jax.jit(forward, static_argnums=(0, 2))

    @partial(jax.custom_vjp, nondiff_argnums=(0,))
    def value(plan: Any, pairs: Pairs) -> Array:
        found: Array = run(plan, pairs, False)[0]
        return found

    def forward_rule(plan: Any, pairs: Pairs) -> tuple[Array, Any]:
        lse, *rest = run(plan, pairs, True)
        return lse, (pairs, rest)

    @partial(jax.jit, static_argnums=0)
    def gradients(plan: Any, pairs: Pairs, upstream: Array, rest: Any) -> Any:
        grad, grad_keys = backward(plan, pairs, upstream, *rest)
        by_scale = scale_gradient(pairs.queries, pairs.keys, grad, pairs.scale)
        return Pairs(grad, grad_keys, by_scale, None, None)

    def backward_rule(plan: Any, residuals: Any, upstream: Array) -> tuple[Any]:
        pairs, rest = residuals
        return (gradients(plan, pairs, upstream, rest),)

    value.defvjp(forward_rule, backward_rule)
    return lambda plan, pairs: value(plan, Pairs(*reverse_only(*pairs)))
