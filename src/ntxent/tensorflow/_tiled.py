"""Log-sum-exp over all pairs, one tile of scores at a time: the n x n matrix never exists.

The mathematics of a tile is in `_tile.py`. When the keys are the queries, only tiles on and above
the diagonal are computed: a tile's row sums belong to its rows and its column sums to its columns.
The first tiles above it are kept for the gradient, the others computed again: at most 4 n^2 d flops
in all, O(n d) memory and what is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf

from ntxent._pairs import Side
from ntxent._sums import both as sum_of
from ntxent._sums import factor, prepared, weights
from ntxent.tensorflow import _tile
from ntxent.tensorflow._cut import Cut, add_to, count, cut, store, transposed, uncut
from ntxent.tensorflow._tile import Found, logarithm, total

Tensor = Any
TILE = 512
KEEP_BYTES = 128 * 2**20
# From so many rows on, if their number is known, XLA compiles the loop over the tiles, 3 s for each
# shape. 2 cores, float32, d=128, N=4096, forward + backward: 250 ms compiled, 350 ms not.
COMPILED_ROWS = 2048


def forward(
    queries: Tensor,
    keys: Tensor | None,
    scale: Tensor,
    query_ids: Tensor,
    key_ids: Tensor,
    unshifted: Any,
    columns: bool,
    most: int,
    budget: int,
) -> tuple[Found, Found | None, Tensor | None]:
    """What is found along rows and (if asked) columns, and tiles for the backward pass."""
    arguments = queries, keys, scale, query_ids, key_ids
    if alone(queries, keys, most):
        return either(unshifted, partial(_tile.forward, *arguments, columns))
    return forward_loops(*arguments, unshifted, columns, most, budget)


def backward(
    queries: Tensor,
    keys: Tensor | None,
    scale: Tensor,
    query_ids: Tensor,
    key_ids: Tensor,
    unshifted: Any,
    row_side: Side,
    column_side: Side | None,
    most: int,
    kept: Tensor | None = None,
    both: bool = True,
) -> list[Tensor]:
    """The gradients of queries and (if both) keys; in the symmetric case one, of both together."""
    arguments = queries, keys, scale, query_ids, key_ids
    sides = row_side, column_side, both
    if kept is not None and alone(queries, keys, most):
        return either(unshifted, partial(_tile.backward, queries, keys, scale, kept, *sides))
    return backward_loops(*arguments, unshifted, most, kept, *sides)


def as_graph(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as a graph: eagerly, Python would dispatch each operation of each tile."""
    plain = tf.function(function, autograph=False, reduce_retracing=True)
    compiled = tf.function(function, autograph=False, jit_compile=True)

    def run(queries: Tensor, *rest: Any) -> Any:
        rows = count(queries)
        if isinstance(rows, int) and rows >= COMPILED_ROWS:
            return compiled(queries, *rest)
        return (plain if tf.executing_eagerly() else function)(queries, *rest)

    return run


@as_graph
def forward_loops(
    queries: Tensor,
    keys: Tensor | None,
    scale: Tensor,
    query_ids: Tensor,
    key_ids: Tensor,
    unshifted: Any,
    columns: bool,
    most: int,
    budget: int,
) -> tuple[Found, Found | None, Tensor | None]:
    """`forward` of more than one tile."""
    left, right = grid(queries, keys, query_ids, key_ids, most)
    kept = most_kept(left, right, keys is None, budget)
    arguments = left, right, scale, keys is None, columns, kept
    row, column, tiles = either(unshifted, partial(found, *arguments))
    return row, column if columns else None, tiles


@as_graph
def backward_loops(
    queries: Tensor,
    keys: Tensor | None,
    scale: Tensor,
    query_ids: Tensor,
    key_ids: Tensor,
    unshifted: Any,
    most: int,
    kept: Tensor | None,
    row_side: Side,
    column_side: Side | None,
    both: bool,
) -> list[Tensor]:
    """`backward` of more than one tile."""
    left, right = grid(queries, keys, query_ids, key_ids, most)
    arguments = left, right, scale, keys is None, kept, row_side, column_side, both
    return either(unshifted, partial(gradients, *arguments))


def alone(queries: Tensor, keys: Tensor | None, most: int) -> bool:
    """Whether one tile is known to be all."""
    numbers = [count(x) for x in (queries, keys) if x is not None]
    return all(isinstance(n, int) and n <= most for n in numbers)


def grid(
    queries: Tensor, keys: Tensor | None, query_ids: Tensor, key_ids: Tensor, most: int
) -> tuple[Cut, Cut]:
    """Both sides in tiles."""
    left = Cut.of(queries, query_ids, most)
    return left, left if keys is None else Cut.of(keys, key_ids, most)


def most_kept(left: Cut, right: Cut, symmetric: bool, budget: int) -> int:
    """How many tiles are kept, of those that aren't on the diagonal of the symmetric case."""
    if not (isinstance(left.tiles, int) and isinstance(right.tiles, int)):
        return 0
    tiles = left.tiles * (left.tiles - 1) // 2 if symmetric else left.tiles * right.tiles
    itemsize = left.rows.dtype.size
    return min(budget // (left.rows.shape[1] * right.rows.shape[1] * itemsize), tiles)


def either(unshifted: Any, run: Callable[..., Any]) -> Any:
    """`run(shifted=...)`, as the scores are known to need it or not, or will turn out."""
    if isinstance(unshifted, bool):
        return run(shifted=not unshifted)
    return tf.cond(unshifted, lambda: run(shifted=False), lambda: run(shifted=True))


def values(left: Cut, right: Cut, scale: Tensor, row: Tensor, column: Tensor, shifted: bool) -> Any:
    """Those of a tile, without what it was filled up with."""
    excluded = left.ids[row][:, None] == right.ids[column]
    excluded |= (left.index[row] == 0)[:, None] | (right.index[column] == 0)
    return _tile.values(left.rows[row], right.rows[column], scale, excluded, shifted)


def over_tiles(
    left: Cut, right: Cut, symmetric: bool, kept: int, step: Callable[..., Any], carry: Any
) -> Any:
    """`carry = step(carry, row, column, mirrored, number)` over all tiles.

    `mirrored` tells whether the tile also stands for its mirror image below the diagonal, `number`
    which of the kept tiles it is, or None. Both are known beforehand, as the diagonal, kept tiles
    and others have loops of their own: a condition would copy what it returns.
    """

    def loop(more: Callable[..., Any], body: Callable[..., Any], *variables: Any) -> Any:
        return tf.while_loop(more, body, variables, parallel_iterations=1)

    def diagonal(row: Tensor, *carry: Any) -> Any:
        return row + 1, *step(carry, row, row, False, None)

    def others(keeps: bool, number: Tensor, row: Tensor, column: Tensor, *carry: Any) -> Any:
        after = step(carry, row, column, symmetric, number if keeps else None)
        ends = column + 1 == right.tiles
        first = row + 2 if symmetric else 0
        row_after = row + tf.cast(ends, tf.int32)
        return number + 1, row_after, tf.where(ends, first, column + 1), *after

    place = 0, 0, 0
    rows = left.tiles
    if symmetric:
        carry = loop(lambda row, *_: row < left.tiles, diagonal, 0, *carry)[1:]
        place, rows = (0, 0, 1), rows - 1
    if kept:
        after = loop(lambda number, *_: number < kept, partial(others, True), *place, *carry)
        place, carry = after[:3], after[3:]
    return loop(lambda _, row, *__: row < rows, partial(others, False), *place, *carry)[3:]


def found(
    left: Cut, right: Cut, scale: Tensor, symmetric: bool, columns: bool, kept: int, shifted: bool
) -> tuple[Found, Found, Tensor | None]:
    """The log-sum-exp and the divisor along rows, and along columns if they are asked for."""

    each = 2 if shifted else 1  # what a sum is made of; the loops' variables are those of both

    def step(carry: Any, row: Tensor, column: Tensor, mirrored: bool, number: Any) -> Any:
        tile = values(left, right, scale, row, column, shifted)
        rows, columns_, tiles = carry[:each], carry[each : 2 * each], carry[2 * each :]
        rows = added(rows, row, total(tile, 1, shifted))
        if mirrored or columns:
            columns_ = added(columns_, column, total(tile, 0, shifted))
        if number is not None:
            tiles = [tiles[0].write(number, tile)]
        return *rows, *columns_, *tiles

    def start(side: Cut) -> Any:
        zeros = tf.zeros(tf.shape(side.ids), scale.dtype)
        return (store(zeros), store(zeros - math.inf)) if shifted else (store(zeros),)

    tiles = ()
    if kept:
        shape = left.rows.shape[1], right.rows.shape[1]
        tiles = (tf.TensorArray(scale.dtype, kept, element_shape=shape),)
    carry = over_tiles(left, right, symmetric, kept, step, (*start(left), *start(right), *tiles))
    row, column, tiles = (
        [x.stack() for x in part]
        for part in (carry[:each], carry[each : 2 * each], carry[2 * each :])
    )
    tiles = tiles[0] if kept else None

    def done(sums, size):
        return logarithm([uncut(x, size) for x in sums], shifted)

    if symmetric:
        both = done(sum_of(tf, row, column), left.count)
        return both, both, tiles
    return done(row, left.count), done(column, right.count), tiles


def added(sums: Any, index: Tensor, more: Any) -> Any:
    """The sums with one tile's added."""
    after = sum_of(tf, [x.read(index) for x in sums], more)
    return [x.write(index, y) for x, y in zip(sums, after, strict=True)]


def gradients(
    left: Cut,
    right: Cut,
    scale: Tensor,
    symmetric: bool,
    kept: Tensor | None,
    row_side: Side,
    column_side: Side | None,
    both: bool,
    shifted: bool,
) -> list[Tensor]:
    """The same, from the tiles."""

    def tiles_of(side: Side, tiles: Any) -> Side:
        return Side(*(cut(x, tiles) for x in prepared(tf, side, scale, shifted)))

    rows = tiles_of(row_side, left.tiles)
    columns = rows if symmetric else None
    if column_side is not None:
        columns = tiles_of(column_side, right.tiles)

    def step(carry: Any, row: Tensor, column: Tensor, mirrored: bool, number: Any) -> Any:
        grad, *turned = carry
        if number is None:
            tile = values(left, right, scale, row, column, shifted)
        else:
            tile = kept[number]
        above = None if columns is None else Side(*(x[column] for x in columns))
        weight = weights(tf, tile, Side(*(x[row] for x in rows)), above, shifted)
        grad = add_to(grad, row, tf.matmul(weight, right.rows[column]))
        if mirrored or (turned and not symmetric):
            more = tf.matmul(left.rows[row], weight, transpose_a=True)
            turned = [add_to(turned[0], column, more)]
        return grad, *turned

    start = [store(tf.zeros_like(left.rows))]
    if both:
        start.append(store(transposed(tf.zeros_like(right.rows))))
    number = 0 if kept is None else count(kept)
    grad, *turned = (x.stack() for x in over_tiles(left, right, symmetric, number, step, start))
    grads = [uncut(grad, left.count), *(uncut(transposed(x), right.count) for x in turned)]
    grads = [x * factor(tf, scale, shifted) for x in grads]
    return [grads[0] + grads[1]] if symmetric else grads
