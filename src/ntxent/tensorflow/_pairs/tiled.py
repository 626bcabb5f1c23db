"""Log-sum-exp over all pairs, one tile of scores at a time: the n x n matrix never exists.

The mathematics of a tile is in `tile.py`, which also serves alone where one tile is all. When the
keys are the queries, only tiles on and above the diagonal are computed: a tile's row sums belong to
its rows and its column sums to its columns. Tiles are computed again for the gradient unless they
were kept: at most 4 n^2 d flops in all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import tensorflow as tf

from ntxent._pairs.functional_tile import factor, prepared, sum_of, weights
from ntxent._pairs.sides import Pairs, Side
from ntxent.tensorflow._pairs import tile as one_tile
from ntxent.tensorflow._pairs.graphs import as_graph, in_xla
from ntxent.tensorflow._pairs.tile import Found, either, logarithm, lowest, total
from ntxent.tensorflow._pairs.tiles import Cut, add_to, count, cut, sizes, store, transposed, uncut

Tensor = Any
TILE = 512
# Up to so many rows, if their number is known, one tile is all, without loops. 2 cores, float32,
# d=128, forward + backward: at N=1024 12.3 ms in loops and 9.3 without, under XLA 10.6 and 6.3.
ALONE = 2048
# Tiles kept for the backward pass, up to this many bytes, where XLA compiles the whole step: none,
# 48, 128 and 256 MiB take 113, 109, 103 and 103 ms at N=4096, in 83, 141, 217 and 217 MiB. A plain
# graph keeps none: what one compiled function hands to another is held twice.
KEEP_BYTES = 128 * 2**20


def forward(
    pairs: Pairs, unshifted: Any, columns: bool, most: int, keep: bool
) -> tuple[Found, Found | None, Tensor | None]:
    """What is found along rows and (if asked) columns, and tiles for the backward pass."""
    found: tuple[Found, Found | None, Tensor | None]
    if alone(pairs):
        found = either(unshifted, partial(one_tile.forward, pairs, columns))
    else:
        found = forward_loops(pairs, unshifted, columns, most, keep and in_xla())
    return found


def backward(
    pairs: Pairs,
    unshifted: Any,
    row: Side,
    column: Side | None,
    most: int,
    kept: Tensor | None = None,
    both: bool = True,
) -> list[Tensor]:
    """The gradients of queries and (if both) keys; in the symmetric case one, of both together."""
    grads: list[Tensor]
    if kept is not None and alone(pairs):
        grads = either(unshifted, partial(one_tile.backward, pairs, kept, row, column, both))
    else:
        grads = backward_loops(pairs, unshifted, most, kept, row, column, both)
    return grads


@as_graph
def forward_loops(
    pairs: Pairs, unshifted: Any, columns: bool, most: int, keep: bool
) -> tuple[Found, Found | None, Tensor | None]:
    """`forward` of more than one tile."""
    grid = Grid.of(pairs, most)
    kept = most_kept(grid) if keep else 0
    value: tuple[Found, Found | None, Tensor | None]
    value = either(unshifted, partial(found, grid, columns, kept))
    return value


@as_graph
def backward_loops(
    pairs: Pairs,
    unshifted: Any,
    most: int,
    kept: Tensor | None,
    row: Side,
    column: Side | None,
    both: bool,
) -> list[Tensor]:
    """`backward` of more than one tile."""
    grid = Grid.of(pairs, most)
    grads: list[Tensor] = either(unshifted, partial(gradients, grid, kept, row, column, both))
    return grads


def alone(pairs: Pairs) -> bool:
    """Whether one tile is known to be all, of `ALONE` rows at most on both sides."""
    numbers = [count(x) for x in (pairs.queries, pairs.others)]
    return all(isinstance(n, int) and n <= ALONE for n in numbers)


class Grid(NamedTuple):
    """Both sides in tiles; one of them in the symmetric case."""

    left: Cut
    right: Cut
    scale: Tensor
    symmetric: bool

    @classmethod
    def of(cls, pairs: Pairs, most: int) -> Grid:
        """Cut into tiles of so many rows at most."""
        left, symmetric = Cut.of(pairs.queries, pairs.query_ids, most), pairs.keys is None
        right = left if symmetric else Cut.of(pairs.keys, pairs.key_ids, most)
        return cls(left, right, pairs.scale, symmetric)

    def values(self, row: Tensor, column: Tensor, shifted: bool) -> Any:
        """Those of a tile, without what it was filled up with."""
        left, right = self.left, self.right
        excluded = tf.equal(left.ids[row][:, None], right.ids[column])
        if left.filled or right.filled:
            filling = tf.equal(left.index[row], 0)[:, None], tf.equal(right.index[column], 0)
            excluded = tf.logical_or(excluded, tf.logical_or(*filling))
        return one_tile.values(left.rows[row], right.rows[column], self.scale, excluded, shifted)


def most_kept(grid: Grid) -> int:
    """How many tiles are kept, of those that aren't on the diagonal of the symmetric case."""
    left, right = grid.left, grid.right
    if not (isinstance(left.tiles, int) and isinstance(right.tiles, int)):
        return 0
    tiles = left.tiles * (left.tiles - 1) // 2 if grid.symmetric else left.tiles * right.tiles
    each = sizes(left.rows)[1] * sizes(right.rows)[1] * left.rows.dtype.size
    return int(min(KEEP_BYTES // each, tiles))


def over_tiles(grid: Grid, kept: int, step: Callable[..., Any], carry: Any) -> Any:
    """`carry = step(carry, row, column, mirrored, place)` over all tiles.

    `mirrored` tells whether the tile also stands for its mirror image below the diagonal, `place`
    which of the kept tiles it is, or None. Both are known beforehand, as tiles on the diagonal,
    tiles that are kept and all others have loops of their own: a condition would copy what it
    returns.
    """
    symmetric, left, right = grid.symmetric, grid.left, grid.right

    def loop(more: Callable[..., Any], body: Callable[..., Any], *variables: Any) -> Any:
        return tf.while_loop(more, body, variables, parallel_iterations=1)

    def diagonal(row: Tensor, *carry: Any) -> Any:
        return row + 1, *step(carry, row, row, False, None)

    def others(keeps: bool, number: Tensor, row: Tensor, column: Tensor, *carry: Any) -> Any:
        after = step(carry, row, column, symmetric, number if keeps else None)
        ends = tf.equal(column + 1, right.tiles)
        first = row + 2 if symmetric else 0
        row += tf.cast(ends, tf.int32)
        return number + 1, row, tf.where(ends, first, column + 1), *after

    start, rows = (0, 0, 0), left.tiles
    if symmetric:
        carry = loop(lambda row, *_: row < left.tiles, diagonal, 0, *carry)[1:]
        start, rows = (0, 0, 1), left.tiles - 1
    variables = *start, *carry
    if kept:
        variables = loop(lambda number, *_: number < kept, partial(others, True), *variables)
    return loop(lambda _, row, *__: row < rows, partial(others, False), *variables)[3:]


def found(
    grid: Grid, columns: bool, kept: int, shifted: bool
) -> tuple[Found, Found | None, Tensor | None]:
    """Along rows, along columns if they are asked for, and the tiles that are kept, if any."""
    left, right, scale, symmetric = grid
    each = 2 if shifted else 1  # what a sum is made of; the loops' variables are those of both

    def step(carry: Any, row: Tensor, column: Tensor, mirrored: bool, place: Any) -> Any:
        tile = grid.values(row, column, shifted)
        rows, columns_, tiles = parts(carry)
        rows = added(rows, row, total(tile, 1, shifted))
        if mirrored or columns:
            columns_ = added(columns_, column, total(tile, 0, shifted))
        if place is not None:
            tiles = [tiles[0].write(place, tile)]
        return *rows, *columns_, *tiles

    def parts(carry: Any) -> Any:
        return carry[:each], carry[each : 2 * each], carry[2 * each :]

    def start(side: Cut) -> Any:
        zeros = tf.zeros(tf.shape(side.ids), scale.dtype)
        return (store(zeros), store(zeros + lowest(zeros))) if shifted else (store(zeros),)

    tiles = [tf.TensorArray(scale.dtype, kept)] if kept else []
    carry = over_tiles(grid, kept, step, (*start(left), *start(right), *tiles))
    row, column, tiles = parts([x.stack() for x in carry])
    if symmetric:
        row = sum_of(tf, row, column, lowest(row[0]))
    along, *down = (
        logarithm([uncut(x, side.count) for x in sums], shifted)
        for sums, side in ((row, left), (column, right))[: 1 + columns]
    )
    return along, down[0] if down else None, tiles[0] if kept else None


def added(sums: Any, index: Tensor, more: Any) -> Any:
    """The sums with one tile's added."""
    after = sum_of(tf, [x.read(index) for x in sums], more, lowest(more[0]))
    return [x.write(index, y) for x, y in zip(sums, after, strict=True)]


def gradients(
    grid: Grid, kept: Any, row: Side, column: Side | None, both: bool, shifted: bool
) -> list[Tensor]:
    """The same, from the tiles."""
    left, right, scale, symmetric = grid

    def tiles_of(side: Side, tiles: Any) -> Side:
        return Side(*(cut(x, tiles) for x in prepared(tf, side, scale, shifted)))

    rows = tiles_of(row, left.tiles)
    columns = rows if symmetric else None
    if column is not None:
        columns = tiles_of(column, right.tiles)

    def step(carry: Any, row: Tensor, column: Tensor, mirrored: bool, place: Any) -> Any:
        grad, *turned = carry
        again = place is None
        tile = grid.values(row, column, shifted) if again else kept[place]
        above = None if columns is None else Side(*(x[column] for x in columns))
        weight = weights(tf, tile, Side(*(x[row] for x in rows)), above, shifted)
        grad = add_to(grad, row, tf.matmul(weight, right.rows[column]))
        if mirrored or (turned and not symmetric):
            more = tf.matmul(turned_rows[row], weight)
            turned = [add_to(turned[0], column, more)]
        return grad, *turned

    # XLA takes up to twice the time for W^T Q, and a tenth more for Q^T W with Q to be turned.
    turned_rows = transposed(left.rows)
    start = [store(tf.zeros_like(left.rows))]
    if both:
        start.append(store(transposed(tf.zeros_like(right.rows))))
    number = 0 if kept is None else count(kept)
    grad, *turned = (x.stack() for x in over_tiles(grid, number, step, start))
    grads = [uncut(grad, left.count), *(uncut(transposed(x), right.count) for x in turned)]
    grads = [x * factor(tf, scale, shifted) for x in grads]
    return [grads[0] + grads[1]] if symmetric else grads
