"""Log-sum-exp over all pairs of a batch that processes hold together, each a shard of its rows.

A process has the rows of its own queries, over the keys of all. What is asked of its own keys, over
the queries of all, is the same with the sides changed over. S, g and h are `_pairs/tiled.py`'s:

    L_i = log sum_k exp(S_ik)                  i own, k of all processes
    dq_i = scale sum_k W_ik k_k                W_ik = g_i exp(S_ik - L_i) + h_k exp(S_ik - C_k)

so that of a key of another process its row, h_k and C_k are all that is needed: rows are exchanged
once more in the backward pass, with two numbers each, and gradients never are. With n queries, and
N keys of all processes, 6 n N d flops, two thirds of them backward.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ntxent._pairs import places
from ntxent._pairs.functional_tile import both
from ntxent._pairs.sides import Side, scale_gradient, sides
from ntxent.jax._pairs import tiled
from ntxent.jax._pairs.tiles import Grid, Plan, cut
from ntxent.jax._processes.mesh import JaxAcross


class Spread(NamedTuple):
    """What is known before there are numbers: jit compiles once for each."""

    across: JaxAcross
    tile: int
    columns: bool
    shifted: bool | None  # None for a traced scale: decided when it runs
    keys: int  # of all processes

    def plan(self, own: Shard, block: Shard) -> Plan:
        """The tiles of the own rows and those of a block, of one process or of all."""
        sizes = len(own.rows), len(block.rows)
        height, width = (places.tile_size(size, self.tile) for size in sizes)
        return Plan(*sizes, height, width, columns=False, symmetric=False, shifted=self.shifted)


class Shard(NamedTuple):
    """Rows of one side, and in the backward pass what is known of them."""

    rows: Array
    ids: Array
    side: Side | None = None


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def pair_logsumexp(
    spread: Spread,
    queries: Array,
    keys: Array | None,
    scale: Array,
    query_ids: Array,
    key_ids: Array,
) -> Array:
    """Log-sum-exps of the own queries, then of the own keys if `spread` has columns."""
    lse: Array
    lse, _ = _forward(spread, queries, keys, scale, query_ids, key_ids)
    return lse


def _forward_rule(spread: Spread, *inputs: Any) -> tuple[Array, Any]:
    lse, divisors = _forward(spread, *inputs)
    return lse, (inputs, divisors)


def _backward_rule(spread: Spread, residuals: Any, upstream: Array) -> tuple[Any, ...]:
    inputs, divisors = residuals
    return *_backward(spread, upstream, divisors, *inputs), None, None


pair_logsumexp.defvjp(_forward_rule, _backward_rule)


@partial(jax.jit, static_argnums=0)
def _forward(
    spread: Spread,
    queries: Array,
    keys: Array | None,
    scale: Array,
    query_ids: Array,
    key_ids: Array,
) -> tuple[Array, tuple[Array, Array | None]]:
    """The log-sum-exps, and what the gradient divides exponentials by."""
    left = Shard(queries, query_ids)
    right = left if keys is None else Shard(keys, key_ids)

    def run(shifted: bool) -> Any:
        row = found(spread, left, right, scale, shifted)
        return row, found(spread, right, left, scale, shifted) if spread.columns else None

    row, column = decided(spread, scale, run)
    if column is None:
        return row[0], (row[1], None)
    return jnp.concatenate((row[0], column[0])), (row[1], column[1])


@partial(jax.jit, static_argnums=0)
def _backward(
    spread: Spread,
    upstream: Array,
    divisors: tuple[Array, Array | None],
    queries: Array,
    keys: Array | None,
    scale: Array,
    query_ids: Array,
    key_ids: Array,
) -> tuple[Array, Array | None, Array | None]:
    """The gradients of queries, keys and scale; without keys the first is of both together."""
    row, column = sides(upstream, *divisors)
    left = Shard(queries, query_ids, row)
    right = left if keys is None else Shard(keys, key_ids, column)

    def run(shifted: bool) -> Any:
        grad = gradient(spread, left, right, scale, shifted)
        return grad, None if keys is None else gradient(spread, right, left, scale, shifted)

    grads = decided(spread, scale, run)
    return *grads, scale_gradient(queries, keys, grads[0], scale)


def decided(spread: Spread, scale: Array, run: Any) -> Any:
    """Run shifted or unshifted, all processes alike: they wait for each other in either."""
    largest = scale if spread.shifted is not None else spread.across.largest(scale)
    return tiled.decided(spread.shifted, spread.keys, largest, run)


def found(
    spread: Spread, own: Shard, others: Shard, scale: Array, shifted: bool
) -> tuple[Array, Array]:
    """The log-sum-exp of each own row over the others of all processes, and the divisor."""

    def step(sums: Any, block: Shard) -> Any:
        plan = spread.plan(own, block)
        grid = Grid.of(plan, own.rows, block.rows, scale, own.ids, block.ids)
        return both(jnp, sums, tiled.sums(plan, grid, shifted)[0][0])

    size = len(own.rows)
    tiles = cut(own.rows, places.tile_size(size, spread.tile))
    sums = spread.across.fold(step, tiled.nothing(tiles, shifted), others)
    return tiled.logarithm(sums, size, shifted)


def gradient(spread: Spread, own: Shard, others: Shard, scale: Array, shifted: bool) -> Array:
    """The gradient of the own rows, from the others of all processes."""

    def step(grad: Array, block: Shard) -> Array:
        plan = spread.plan(own, block)
        grid = Grid.of(plan, own.rows, block.rows, scale, own.ids, block.ids)
        return grad + tiled.query_gradient(plan, grid, own.side, block.side, shifted)

    grad: Array = spread.across.fold(step, jnp.zeros_like(own.rows), others)
    return grad
