"""Log-sum-exp over all pairs, one tile of scores at a time: the n x n matrix never exists.

With S = scale * Q K^T and upstream g (rows) and h (columns), over the pairs that count:

    row_lse_i = log sum_k exp(S_ik)            column_lse_k = log sum_i exp(S_ik)
    W_ik = g_i exp(S_ik - row_lse_i) + h_k exp(S_ik - column_lse_k)
    dQ = scale W K                             dK = scale W^T Q

When the keys are the queries, only tiles on and above the diagonal are computed: a tile's row sums
belong to its rows and its column sums to its columns, and W with h = g holds both terms of a pair.
Every tile is computed again for the gradient, unless there are few, which are kept: 4 n^2 d flops
in all or 3, O(n d) memory. `reverse_mode.py` refuses forward mode, which `dense` has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from ntxent._pairs import headroom
from ntxent._pairs.functional_tile import factor, finite, prepared, sum_of, weights
from ntxent._pairs.sides import Pairs, Side, sides
from ntxent.jax._pairs.closed_form import closed_form
from ntxent.jax._pairs.tiles import Grid, Plan, cut, product, put, uncut

# Of tiles of 512, 1024 and 2048 (docs/performance.md, `python -m benchmarks.tune`) the last are a
# sixth faster at N=1024 and a tenth at N=16384, but took 45 ms for 28 at N=2048.
TILE = 1024
# If all tiles together are no larger than this they are kept for the backward pass. At N=1024 that
# saves 13 % of the processor's time. With 40 MiB at N=2048 and 48 or 128 at N=4096 it saves
# nothing: what is more than 32 MiB glibc takes from the system anew at each call, page by page.
KEEP_BYTES = 16 * 2**20


def forward(plan: Plan, pairs: Pairs, differentiated: bool) -> tuple[Array, Any, list[Array]]:
    """The log-sum-exps, what the gradient divides exponentials by, and the tiles that are kept."""
    plan = plan._replace(keeps=plan.keeps and differentiated)
    run = partial(found, plan, Grid.of(plan, pairs))
    row, column, kept = decided(plan.shifted, plan.keys, pairs.scale, run)
    return *both_sides(row, column), kept


def both_sides(row: Any, column: Any) -> tuple[Array, tuple[Array, Array | None]]:
    """Log-sum-exps of rows, then of columns if there are any; the divisors of each."""
    if column is None:
        return row[0], (row[1], None)
    return jnp.concatenate((row[0], column[0])), (row[1], column[1])


def backward(
    plan: Plan, pairs: Pairs, upstream: Array, divisors: Any, kept: list[Array]
) -> tuple[Array, Array | None]:
    """The gradients of queries and keys; without keys the first is of both together."""
    row, column = sides(upstream, *divisors)
    run = partial(gradients, plan, Grid.of(plan, pairs), kept, row, column)
    grads: tuple[Array, Array | None] = decided(plan.shifted, plan.keys, pairs.scale, run)
    return grads


pair_logsumexp = closed_form(forward, backward)


def decided(shifted: bool | None, keys: int, scale: Array, run: Callable[[bool], Any]) -> Any:
    """Run shifted or unshifted: as planned, or as a traced scale turns out when it runs."""
    if shifted is not None:
        return run(shifted)
    fits = scale + math.log(keys) <= headroom.ROOM[scale.dtype.itemsize]
    return lax.cond(fits, partial(run, False), partial(run, True))


def scan(
    plan: Plan,
    grid: Grid,
    shifted: bool,
    step: Callable[..., Any],
    carry: Any,
    kept: Sequence[Array] = (),
) -> tuple[Any, list[Array]]:
    """`carry = step(carry, values, row, column, mirrored)` over all tiles.

    `mirrored` tells whether the tile also stands for its mirror image below the diagonal. The
    values are those of the tiles that were kept, or else computed, and then kept if so planned.
    """
    keeps = plan.keeps and not kept
    found: list[Any] = []
    for number, (mirrored, places) in enumerate(plan.passes()):

        def body(carry: Any, tile: Any, mirrored: bool = mirrored) -> tuple[Any, Array | None]:
            (row, column), values = tile
            if values is None:
                values = grid.values(plan, row, column, shifted)
            return step(carry, values, row, column, mirrored), values if keeps else None

        tiles = jnp.array(places), kept[number] if kept else None
        carry, values = lax.scan(body, carry, tiles)
        found += [values] if keeps else []
    return carry, found


def found(plan: Plan, grid: Grid, shifted: bool) -> tuple[Any, Any, list[Array]]:
    """The log-sum-exp and the divisor along rows, along columns if asked for; the tiles kept."""
    (rows, columns), kept = sums(plan, grid, shifted)
    if plan.symmetric:
        return logarithm(sum_of(jnp, rows, columns), plan.queries, shifted), None, kept
    of_columns = logarithm(columns, plan.keys, shifted) if plan.columns else None
    return logarithm(rows, plan.queries, shifted), of_columns, kept


def sums(plan: Plan, grid: Grid, shifted: bool) -> tuple[Any, list[Array]]:
    """The sums of exponentials along rows and columns, in tiles; mirrored ones are in columns."""

    def step(carry: Any, values: Array, row: Array, column: Array, mirrored: bool) -> Any:
        rows, columns = carry
        rows = added(rows, row, values, 1)
        return rows, added(columns, column, values, 0) if mirrored or plan.columns else columns

    def added(sums: Any, index: Array, values: Array, axis: int) -> Any:
        after = sum_of(jnp, [x[index] for x in sums], total(values, axis, shifted))
        return tuple(put(x, index, y) for x, y in zip(sums, after, strict=True))

    # Two, also where the keys are the queries: what is updated twice in a step, XLA copies.
    start = nothing(grid.queries, shifted), nothing(grid.keys, shifted)
    return scan(plan, grid, shifted, step, start)


def nothing(tiles: Array, shifted: bool) -> tuple[Array, ...]:
    """The sums of no exponentials, one for each row of the tiles."""
    zeros = jnp.zeros_like(tiles[:, :, 0])
    return (zeros, jnp.full_like(zeros, -math.inf)) if shifted else (zeros,)


def total(values: Array, axis: int, shifted: bool) -> tuple[Array, ...]:
    """The sum of exponentials, or that of scores below their maximum, and the maximum."""
    if not shifted:
        return (values.sum(axis),)
    top = lax.stop_gradient(values).max(axis)
    return jnp.exp(values - jnp.expand_dims(finite(jnp, top), axis)).sum(axis), top


def logarithm(sums: Any, size: int, shifted: bool) -> tuple[Array, Array]:
    """The log-sum-exp, and the divisor: the sum, or for shifted scores the log-sum-exp.

    A row without any pair has the sum 0: its weights shall be 0 / inf, or exp(-inf - inf).
    """
    total, *tops = (uncut(x, size) for x in sums)
    empty = total == 0
    full = jnp.where(empty, 1, total)
    if shifted:
        lse = jnp.log(full) + jnp.where(empty, 0, tops[0])
    else:  # XLA's log is off by up to two units in the last digit: make what it gives small
        power = jnp.round(jnp.log(lax.stop_gradient(full)))
        lse = jnp.log(full * jnp.exp(-power)) + power
    divisor = jnp.where(empty, math.inf, lse if shifted else total)
    return jnp.where(empty, -math.inf, lse), divisor


def gradients(
    plan: Plan,
    grid: Grid,
    kept: list[Array],
    row_side: Side,
    column_side: Side | None,
    shifted: bool,
) -> tuple[Array, Array | None]:
    """The gradients of queries and keys; in the symmetric case one, of both together."""
    rows = tiles_of(row_side, plan.height, grid, shifted)
    columns = rows if plan.symmetric else tiles_of(column_side, plan.width, grid, shifted)

    turned_queries = grid.queries.swapaxes(1, 2)

    def step(carry: Any, values: Array, row: Array, column: Array, mirrored: bool) -> Any:
        grad, turned = carry
        weight = weights(jnp, values, at(rows, row), at(columns, column), shifted)
        grad = put(grad, row, grad[row] + product(weight, grid.keys[column]))
        if mirrored or not plan.symmetric:
            found = product(turned_queries[row], weight)
            turned = put(turned, column, turned[column] + found)
        return grad, turned

    # Each is updated once in a step, or XLA would copy all of it each time. That of the keys is
    # transposed: Q^T W takes two fifths of the time of W^T Q, with Q^T made once for all tiles.
    start = jnp.zeros_like(grid.queries), jnp.zeros_like(grid.keys.swapaxes(1, 2))
    (grad, turned), _ = scan(plan, grid, shifted, step, start, kept)
    by = factor(jnp, grid.scale, shifted)
    grad = uncut(grad, plan.queries) * by
    grad_keys = uncut(turned.swapaxes(1, 2), plan.keys) * by
    return (grad + grad_keys, None) if plan.symmetric else (grad, grad_keys)


def query_gradient(
    plan: Plan, grid: Grid, row_side: Side | None, column_side: Side | None, shifted: bool
) -> Array:
    """The gradient of the queries alone, of a grid that has no mirror images."""
    rows = tiles_of(row_side, plan.height, grid, shifted)
    columns = tiles_of(column_side, plan.width, grid, shifted)

    def step(grad: Array, values: Array, row: Array, column: Array, mirrored: bool) -> Array:
        del mirrored
        weight = weights(jnp, values, at(rows, row), at(columns, column), shifted)
        return put(grad, row, grad[row] + product(weight, grid.keys[column]))

    grad, _ = scan(plan, grid, shifted, step, jnp.zeros_like(grid.queries))
    by: Array = factor(jnp, grid.scale, shifted)
    return uncut(grad, plan.queries) * by


def tiles_of(side: Side | None, size: int, grid: Grid, shifted: bool) -> Side | None:
    """A side prepared and cut, if there is one."""
    if side is None:
        return None
    return Side(*(cut(x, size) for x in prepared(jnp, side, grid.scale, shifted)))


def at(side: Side | None, index: Array) -> Side | None:
    """One tile of a side, if there is one."""
    return None if side is None else Side(*(x[index] for x in side))
