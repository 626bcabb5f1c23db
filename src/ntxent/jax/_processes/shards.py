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

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from ntxent._pairs import places
from ntxent._pairs.functional_tile import sum_of
from ntxent._pairs.sides import Pairs, Side, sides
from ntxent.jax._pairs import tiled
from ntxent.jax._pairs.closed_form import closed_form
from ntxent.jax._pairs.tiles import Grid, Plan, cut
from ntxent.jax._processes.mesh import JaxAcross


class Spread(NamedTuple):
    """What is known before there are numbers: jit compiles once for each."""

    across: JaxAcross
    tile: int
    columns: bool
    shifted: bool | None  # None for a traced scale: decided when it runs
    keys: int  # of all processes

    def tiles(self, own: Shard, block: Shard, scale: Array) -> tuple[Plan, Grid]:
        """Those of the own rows and the rows of a block, of one process or of all."""
        sizes = len(own.rows), len(block.rows)
        height, width = (places.tile_size(size, self.tile) for size in sizes)
        plan = Plan(*sizes, height, width, columns=False, symmetric=False, shifted=self.shifted)
        return plan, Grid.of(plan, Pairs(own.rows, block.rows, scale, own.ids, block.ids))


class Shard(NamedTuple):
    """Rows of one side, and in the backward pass what is known of them."""

    rows: Array
    ids: Array
    side: Side | None = None


def two_shards(pairs: Pairs, row: Side | None = None, column: Side | None = None) -> list[Shard]:
    """Own queries and own keys, which may be the same."""
    left = Shard(pairs.queries, pairs.query_ids, row)
    return [left, left if pairs.keys is None else Shard(pairs.keys, pairs.key_ids, column)]


def forward(spread: Spread, pairs: Pairs, differentiated: bool) -> tuple[Array, Any]:
    """The log-sum-exps, and what the gradient divides exponentials by."""
    del differentiated  # nothing is kept
    left, right = two_shards(pairs)

    def run(shifted: bool) -> Any:
        row = found(spread, left, right, pairs.scale, shifted)
        return row, found(spread, right, left, pairs.scale, shifted) if spread.columns else None

    return tiled.both_sides(*decided_by_all(spread, pairs.scale, run))


def backward(
    spread: Spread, pairs: Pairs, upstream: Array, divisors: Any
) -> tuple[Array, Array | None]:
    """The gradients of queries and keys; without keys the first is of both together."""
    left, right = two_shards(pairs, *sides(upstream, *divisors))

    def run(shifted: bool) -> Any:
        grad = gradient(spread, left, right, pairs.scale, shifted)
        if pairs.keys is None:
            return grad, None
        return grad, gradient(spread, right, left, pairs.scale, shifted)

    grads: tuple[Array, Array | None] = decided_by_all(spread, pairs.scale, run)
    return grads


pair_logsumexp = closed_form(forward, backward)


def decided_by_all(spread: Spread, scale: Array, run: Any) -> Any:
    """Run shifted or unshifted, all processes alike: they wait for each other in either."""
    largest = scale if spread.shifted is not None else spread.across.largest(scale)
    return tiled.decided(spread.shifted, spread.keys, largest, run)


def found(
    spread: Spread, own: Shard, others: Shard, scale: Array, shifted: bool
) -> tuple[Array, Array]:
    """The log-sum-exp of each own row over the others of all processes, and the divisor."""

    def step(sums: Any, block: Shard) -> Any:
        return sum_of(jnp, sums, tiled.sums(*spread.tiles(own, block, scale), shifted)[0][0])

    size = len(own.rows)
    tiles = cut(own.rows, places.tile_size(size, spread.tile))
    sums = spread.across.fold(step, tiled.nothing(tiles, shifted), others)
    return tiled.logarithm(sums, size, shifted)


def gradient(spread: Spread, own: Shard, others: Shard, scale: Array, shifted: bool) -> Array:
    """The gradient of the own rows, from the others of all processes."""

    def step(grad: Array, block: Shard) -> Array:
        tiles = spread.tiles(own, block, scale)
        return grad + tiled.query_gradient(*tiles, own.side, block.side, shifted)

    grad: Array = spread.across.fold(step, jnp.zeros_like(own.rows), others)
    return grad
