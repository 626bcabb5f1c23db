"""Log-sum-exp over all pairs, one tile of scores at a time: the n x n matrix never exists.

With S = scale * Q K^T and upstream g (rows) and h (columns), over the pairs that count:

    row_lse_i = log sum_k exp(S_ik)            column_lse_k = log sum_i exp(S_ik)
    W_ik = g_i exp(S_ik - row_lse_i) + h_k exp(S_ik - column_lse_k)
    dQ = scale W K                             dK = scale W^T Q

When the keys are the queries, only tiles on and above the diagonal are computed: a tile's row sums
belong to its rows and its column sums to its columns, and W with h = g holds both terms of a pair.
Every tile is computed again for the gradient: 4 n^2 d flops in all, O(n d) memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from ntxent import _range
from ntxent._pairs import Side
from ntxent._sums import both, factor, finite, prepared, weights

Tensor = Any
TILE = 512
# From so many rows on, if their number is known, XLA compiles the loop over the tiles, 3 s for each
# shape. 2 cores, float32, d=128, N=4096, forward + backward: 250 ms compiled, 350 ms not.
COMPILED_ROWS = 2048


class Found(NamedTuple):
    """Log-sum-exps, and what the gradient divides exponentials by; see `ntxent._pairs.Side`."""

    lse: Tensor
    divisor: Tensor


class Cut(NamedTuple):
    """Rows in tiles, (tiles, size, d), with their ids and their indices, (tiles, size)."""

    rows: Tensor
    ids: Tensor
    index: Tensor
    tiles: Any
    count: Any

    @classmethod
    def of(cls, rows: Tensor, ids: Tensor, most: int) -> Cut:
        """The fewest tiles, all of nearly equal size; the last is filled up with zeros."""
        size = count(rows)
        tiles = -(-size // most)
        return cls(cut(rows, tiles), cut(ids, tiles), cut(tf.range(size) + 1, tiles), tiles, size)


def sizes(array: Tensor) -> list[Any]:
    """The shape, with a tensor in place of each size that isn't known yet."""
    return [
        tf.shape(array)[axis] if size is None else size for axis, size in enumerate(array.shape)
    ]


def count(rows: Tensor) -> Any:
    """How many rows, a tensor where that isn't known yet."""
    return sizes(rows)[0]


def cut(rows: Tensor, tiles: Any) -> Tensor:
    """The rows in so many tiles."""
    size = count(rows)
    height = -(-size // tiles)
    filling = [[0, tiles * height - size], *[[0, 0]] * (len(rows.shape) - 1)]
    return tf.reshape(tf.pad(rows, filling), (tiles, height, *sizes(rows)[1:]))


def uncut(tiles: Tensor, size: Any) -> Tensor:
    """The rows that were cut, so many of them."""
    return tf.reshape(tiles, (-1, *sizes(tiles)[2:]))[:size]


def store(tiles: Tensor) -> tf.TensorArray:
    """The tiles, each to be written on its own: a tensor would be copied whole for each."""
    return tf.TensorArray(tiles.dtype, clear_after_read=False, size=count(tiles)).unstack(tiles)


def add_to(tiles: tf.TensorArray, index: Tensor, more: Tensor) -> tf.TensorArray:
    """The tiles with something added to one of them."""
    return tiles.write(index, tiles.read(index) + more)


def values(left: Cut, right: Cut, scale: Tensor, row: Tensor, column: Tensor, shifted: bool) -> Any:
    """The scores of a tile, or their exponentials; excluded pairs are at -inf, or at 0."""
    scores = tf.matmul(left.rows[row] * scale, right.rows[column], transpose_b=True)
    excluded = left.ids[row][:, None] == right.ids[column]
    filling = (left.index[row] == 0)[:, None] | (right.index[column] == 0)
    scores = tf.where(excluded | filling, tf.constant(-math.inf, scores.dtype), scores)
    return scores if shifted else tf.exp(scores)


def over_tiles(left: Cut, right: Cut, symmetric: bool, step: Callable[..., Any], carry: Any) -> Any:
    """`carry = step(carry, row, column, mirrored)` over all tiles.

    `mirrored` tells whether the tile also stands for its mirror image below the diagonal. That is
    known beforehand, as the diagonal has a loop of its own: a condition would copy what it returns.
    """

    def loop(rows: Any, body: Callable[..., Any], *variables: Any) -> Any:
        return tf.while_loop(lambda row, *_: row < rows, body, variables, parallel_iterations=1)

    def diagonal(row: Tensor, *carry: Any) -> Any:
        return row + 1, *step(carry, row, row, False)

    def others(row: Tensor, column: Tensor, *carry: Any) -> Any:
        after = step(carry, row, column, symmetric)
        ends = column + 1 == right.tiles
        first = row + 2 if symmetric else 0
        return row + tf.cast(ends, tf.int32), tf.where(ends, first, column + 1), *after

    if not symmetric:
        return loop(left.tiles, others, 0, 0, *carry)[2:]
    carry = loop(left.tiles, diagonal, 0, *carry)[1:]
    return loop(left.tiles - 1, others, 0, 1, *carry)[2:]


def fits(scale: Tensor, keys: Any) -> Tensor:
    """Whether exponentials of so many unit rows need no shift; see `ntxent._range`."""
    room = _range.ROOM[scale.dtype.size]
    return scale + tf.math.log(tf.cast(keys, scale.dtype)) <= room


def either(unshifted: Any, run: Callable[[bool], Any]) -> Any:
    """`run(shifted)`, as the scores are known not to need it, False, or will turn out."""
    if unshifted is False:
        return run(True)
    return tf.cond(unshifted, lambda: run(False), lambda: run(True))


def as_graph(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as a graph: eagerly, Python would dispatch each operation of each tile."""
    plain = tf.function(function, autograph=False, reduce_retracing=True)
    compiled = tf.function(function, autograph=False, jit_compile=True)

    def run(queries: Tensor, *rest: Any) -> Any:
        rows = count(queries)
        many = isinstance(rows, int) and rows >= COMPILED_ROWS
        return (compiled if many else plain)(queries, *rest)

    return run


@as_graph
def forward(
    queries: Tensor,
    keys: Tensor | None,
    scale: Tensor,
    query_ids: Tensor,
    key_ids: Tensor,
    unshifted: Any,
    columns: bool,
    most: int,
) -> tuple[Found, Found | None]:
    """What is found along rows and (if asked) columns."""
    left = Cut.of(queries, query_ids, most)
    right = left if keys is None else Cut.of(keys, key_ids, most)

    def run(shifted: bool) -> Any:
        return found(left, right, scale, keys is None, columns, shifted)

    row, column = either(unshifted, run)
    return Found(*row), Found(*column) if columns else None


def found(
    left: Cut, right: Cut, scale: Tensor, symmetric: bool, columns: bool, shifted: bool
) -> list[tuple[Tensor, Tensor]]:
    """The log-sum-exp and the divisor along rows, and along columns if they are asked for."""

    each = 2 if shifted else 1  # what a sum is made of; the loops' variables are those of both

    def step(carry: Any, row: Tensor, column: Tensor, mirrored: bool) -> Any:
        tile = values(left, right, scale, row, column, shifted)
        rows, columns_ = added(carry[:each], row, total(tile, 1, shifted)), carry[each:]
        if mirrored or columns:
            columns_ = added(columns_, column, total(tile, 0, shifted))
        return *rows, *columns_

    def start(side: Cut) -> Any:
        zeros = tf.zeros(tf.shape(side.ids), scale.dtype)
        return (store(zeros), store(zeros - math.inf)) if shifted else (store(zeros),)

    carry = over_tiles(left, right, symmetric, step, (*start(left), *start(right)))
    row, column = ([x.stack() for x in side] for side in (carry[:each], carry[each:]))
    if symmetric:
        return [logarithm(both(tf, row, column), left.count, shifted)] * 2
    return [logarithm(row, left.count, shifted), logarithm(column, right.count, shifted)]


def added(sums: Any, index: Tensor, more: Any) -> Any:
    """The sums with one tile's added."""
    after = both(tf, [x.read(index) for x in sums], more)
    return [x.write(index, y) for x, y in zip(sums, after, strict=True)]


def total(tile: Tensor, axis: int, shifted: bool) -> tuple[Tensor, ...]:
    """The sum of exponentials, or that of scores below their maximum, and the maximum."""
    if not shifted:
        return (tf.reduce_sum(tile, axis),)
    top = tf.reduce_max(tile, axis)
    return tf.reduce_sum(tf.exp(tile - tf.expand_dims(finite(tf, top), axis)), axis), top


def logarithm(sums: Any, size: Any, shifted: bool) -> tuple[Tensor, Tensor]:
    """The log-sum-exp, and the divisor: the sum, or for shifted scores the log-sum-exp.

    A row without any pair has the sum 0: its weights shall be 0 / inf, or exp(-inf - inf).
    """
    found, *tops = (uncut(x, size) for x in sums)
    lse = tf.math.log(found) + (tops[0] if shifted else 0)
    infinite = tf.constant(math.inf, lse.dtype)
    divisor = tf.where(found == 0, infinite, lse if shifted else found)
    return tf.where(found == 0, -infinite, lse), divisor


@as_graph
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
    both: bool = True,
) -> list[Tensor]:
    """The gradients of queries and (if both) keys; in the symmetric case one, of both together."""
    left = Cut.of(queries, query_ids, most)
    right = left if keys is None else Cut.of(keys, key_ids, most)

    def run(shifted: bool) -> Any:
        sides = row_side, column_side
        return gradients(left, right, scale, keys is None, both, *sides, shifted)

    grads: list[Tensor] = either(unshifted, run)
    return grads


def gradients(
    left: Cut,
    right: Cut,
    scale: Tensor,
    symmetric: bool,
    both: bool,
    row_side: Side,
    column_side: Side | None,
    shifted: bool,
) -> list[Tensor]:
    """The same, from the tiles."""

    def tiles_of(side: Side, tiles: Any) -> Side:
        return Side(*(cut(x, tiles) for x in prepared(tf, side, scale, shifted)))

    rows = tiles_of(row_side, left.tiles)
    columns = rows if symmetric else None
    if column_side is not None:
        columns = tiles_of(column_side, right.tiles)

    def step(carry: Any, row: Tensor, column: Tensor, mirrored: bool) -> Any:
        grad, *turned = carry
        tile = values(left, right, scale, row, column, shifted)
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
    grad, *turned = (x.stack() for x in over_tiles(left, right, symmetric, step, start))
    grads = [uncut(grad, left.count), *(uncut(transposed(x), right.count) for x in turned)]
    grads = [x * factor(tf, scale, shifted) for x in grads]
    return [grads[0] + grads[1]] if symmetric else grads


def transposed(tiles: Tensor) -> Tensor:
    """Each tile transposed."""
    return tf.transpose(tiles, (0, 2, 1))
