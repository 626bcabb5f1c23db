"""Log-sum-exp over all pairs, one tile of scores at a time: the n x n matrix never exists.

With S = scale * Q K^T (excluded pairs at -inf) and upstream g (rows) and h (columns):

    row_lse_i = log sum_k exp(S_ik)            column_lse_k = log sum_i exp(S_ik)
    W_ik = g_i exp(S_ik - row_lse_i) + h_k exp(S_ik - column_lse_k)
    dQ = scale W K                             dK = scale W^T Q

When the keys are the queries, only tiles on and above the diagonal are computed: a tile's row sums
belong to its rows and its column sums to its columns, and W with h = g holds both terms of a pair.
BLAS does the products; tiles are computed again for the gradient, unless one is all: 4 n^2 d flops.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np

from ntxent._pairs import headroom, places, sharing
from ntxent._pairs.sides import Side
from ntxent.numpy._pairs.threads import BLAS, POOL

Array = np.ndarray[Any, Any]
Ids = Array | int | None
Do = Callable[[int, slice, slice], None]  # with the lane, rows and columns of a tile

TILE = 512
FEW = 64 * 64  # pairs; at d = 128 so many take 40 microseconds in float64, 8 in float32


class Pairs:
    """Queries against keys (or against themselves), served one tile of scores at a time."""

    def __init__(
        self, queries: Array, keys: Array | None, scale: float, ids: tuple[Ids, Ids], unit: bool
    ) -> None:
        self.symmetric = keys is None
        self.queries, self.keys = queries, queries if keys is None else keys
        self.scale, self.scaled = scale, queries * queries.dtype.type(scale)
        rows, columns = len(queries), len(self.keys)
        self.shifted = headroom.needs_shift(queries.itemsize, scale, columns, unit)
        self.ids = ids
        threads = 1 if max(rows, columns) <= TILE else BLAS.threads()
        self.height, self.width = (
            places.tile_size(size, sharing.tile_rows(size, TILE, threads))
            for size in (rows, columns)
        )
        self.bands, across = -(-rows // self.height), -(-columns // self.width)
        self.lanes = 1 if self.symmetric else sharing.lanes(self.bands, across, threads)
        self.shape = self.bands * self.lanes, across, self.symmetric
        self.workers = min(threads, places.at_once(*self.shape))
        self.alone = self.shape[:2] == (1, 1)
        self.kept: Array | None = None  # the tile that is all

    def side_by_side(self, worker: Callable[[], Do]) -> None:
        """Have all tiles done; each of the workers has its own buffers and does some of them."""
        if self.alone:
            worker()(0, *self.place(0, 0))
            return

        def work(do: Do, row: int, column: int) -> None:
            do(row // self.bands, *self.place(row, column))

        tiles = places.rounds(*self.shape, self.lanes)
        with BLAS.one_thread() if self.workers > 1 else nullcontext():
            sharing.side_by_side(
                POOL, self.workers, tiles, self.symmetric, lambda: partial(work, worker())
            )

    def tiles(self) -> Iterator[tuple[slice, slice, Array]]:
        """The rows, the columns and the values of one tile after the other."""
        buffer = self.new_buffer()
        for tile in places.rounds(*self.shape, self.lanes):
            place = self.place(*tile)
            yield *place, self.tile(*place, buffer)

    def place(self, row: int, column: int) -> tuple[slice, slice]:
        """The rows and the columns of a tile; the last of either may have fewer."""
        down, across = row % self.bands * self.height, column * self.width
        return (
            slice(down, min(down + self.height, len(self.queries))),
            slice(across, min(across + self.width, len(self.keys))),
        )

    def tile(self, rows: slice, columns: slice, buffer: Array) -> Array:
        """Scores, their exponentials if unshifted; a tile that is all is kept from pass to pass."""
        if self.kept is not None:
            return self.kept
        tile = self.fill(rows, columns, buffer)
        if self.alone:
            self.kept = tile
        return tile

    def fill(self, rows: slice, columns: slice, buffer: Array) -> Array:
        """The tile in the buffer, with its excluded pairs at -inf before exp."""
        tile = buffer[: rows.stop - rows.start, : columns.stop - columns.start]
        similarities(self.scaled[rows], self.keys[columns], tile)
        self.exclude(tile, rows, columns)
        return tile if self.shifted else np.exp(tile, out=tile)

    def new_buffer(self) -> Array:
        """Memory for the largest tile."""
        return np.empty((self.height, self.width), self.queries.dtype)

    def exclude(self, tile: Array, rows: slice, columns: slice) -> None:
        """Put -inf at the pairs of equal ids; comparing them all costs what the product does."""
        query_ids, key_ids = self.ids
        if isinstance(query_ids, int):
            ahead = rows.start - columns.start
            for offset in places.diagonals(query_ids, ahead, *tile.shape):
                np.fill_diagonal(tile[max(-offset, 0) :, max(offset, 0) :], -math.inf)
            return
        left = query_ids[rows]  # type: ignore[index]
        right = (query_ids if key_ids is None else key_ids)[columns]  # type: ignore[index]
        if places.overlap((left.min(), left.max()), (right.min(), right.max())):
            tile[left[:, None] == right] = -math.inf

    def mirrored(self, rows: slice, columns: slice) -> bool:
        """Whether the tile also stands for its mirror image below the diagonal."""
        return self.symmetric and rows != columns


def similarities(a: Array, b: Array, out: Array) -> Array:
    """The dot products of all rows of `a` with all of `b`.

    In float64 where there are few: some of OpenBLAS' kernels add one product after the other, and
    rows that are alike are off by up to 4 epsilons (2^-24) at d = 513 and by 48 at 1024, which in
    the small loss of a small batch would be its largest error.
    """
    dtype = np.float64 if out.size <= FEW else out.dtype
    found: Array = np.matmul(a, b.T, out=out, dtype=dtype, casting="same_kind")
    return found


class Sums:
    """Sums of exponentials that need no shift, in so many lanes."""

    def __init__(self, size: int, dtype: Any, lanes: int = 1) -> None:
        self.total = np.zeros((lanes, size), dtype)

    def add(self, where: slice, exponentials: Array, axis: int, lane: int = 0) -> None:
        self.total[lane, where] += exponentials.sum(axis)

    def found(self) -> tuple[Array, Array]:
        """The log-sum-exp, and what the gradient divides exponentials by."""
        total = added(self.total)
        return np.log(total), total


class ShiftedSums(Sums):
    """Sums of exponentials below a running maximum; -inf is the maximum of no pairs at all."""

    def __init__(self, size: int, dtype: Any, lanes: int = 1) -> None:
        super().__init__(size, dtype, lanes)
        self.top = np.full((lanes, size), -math.inf, dtype)

    def add(self, where: slice, scores: Array, axis: int, lane: int = 0) -> None:
        before = self.top[lane, where]
        top = np.maximum(before, scores.max(axis))
        shift = np.where(top == -math.inf, 0, top)
        found = np.exp(scores - np.expand_dims(shift, axis)).sum(axis)
        self.total[lane, where] = self.total[lane, where] * np.exp(before - shift) + found
        self.top[lane, where] = top

    def found(self) -> tuple[Array, Array]:
        top = self.top.max(0)
        shift = np.where(top == -math.inf, 0, top)
        lse = np.log(added(self.total * np.exp(self.top - shift))) + top
        return lse, lse


def added(lanes: Array) -> Array:
    """The sum of the lanes, in order."""
    found: Array = lanes[0] if len(lanes) == 1 else lanes.sum(0)
    return found


def forward(
    pairs: Pairs, columns: bool
) -> tuple[tuple[Array, Array], tuple[Array | None, Array | None]]:
    """Log-sum-exp and divisor along rows and (if asked) columns."""
    sums = ShiftedSums if pairs.shifted else Sums
    row_sums = sums(len(pairs.queries), pairs.queries.dtype, pairs.lanes)
    column_sums = sums(len(pairs.keys), pairs.keys.dtype) if columns else None

    def worker() -> Do:
        buffer = pairs.new_buffer()

        def do(lane: int, down: slice, across: slice) -> None:
            tile = pairs.tile(down, across, buffer)
            row_sums.add(down, tile, 1, lane)
            if pairs.mirrored(down, across):
                row_sums.add(across, tile, 0)
            if column_sums is not None:
                column_sums.add(across, tile, 0)

        return do

    pairs.side_by_side(worker)
    return row_sums.found(), (None, None) if column_sums is None else column_sums.found()


def backward(
    pairs: Pairs, row: Side, column: Side | None, by_keys: bool
) -> tuple[Array, Array | None]:
    """The gradients of queries and (if wanted) keys; in the symmetric case one, of both."""
    row = prepared(pairs, row)
    if column is not None:
        column = prepared(pairs, column)
    if pairs.symmetric:
        column = row
    by_lane = np.zeros((pairs.lanes, *pairs.queries.shape), pairs.queries.dtype)
    grad_keys = np.zeros(pairs.keys.shape, pairs.keys.dtype) if by_keys else None
    if pairs.symmetric:
        grad_keys = by_lane[0]

    def worker() -> Do:
        buffer, other = pairs.new_buffer(), pairs.new_buffer()

        def do(lane: int, down: slice, across: slice) -> None:
            tile = pairs.tile(down, across, other)
            out = buffer[: tile.shape[0], : tile.shape[1]]
            left = Side(row.upstream[down], row.divisor[down])
            above = None
            if column is not None:
                above = Side(column.upstream[across], column.divisor[across])
            weight = weights(tile, left, above, pairs.shifted, out)
            by_lane[lane, down] += weight @ pairs.keys[across]
            if grad_keys is not None and (not pairs.symmetric or pairs.mirrored(down, across)):
                grad_keys[across] += weight.T @ pairs.queries[down]

        return do

    pairs.side_by_side(worker)
    factor = pairs.queries.dtype.type(headroom.weight_scale(pairs.scale, pairs.shifted))
    grad_queries = added(by_lane)
    grad_queries *= factor
    if pairs.symmetric or grad_keys is None:
        return grad_queries, None
    grad_keys *= factor
    return grad_queries, grad_keys


def prepared(pairs: Pairs, side: Side) -> Side:
    """g as it is if shifted, r = g exp(lift) / sum if not; see `ntxent._pairs.headroom`.

    A row without any pair has the sum 0: its weights shall be 0 / inf, or exp(-inf - inf).
    """
    upstream, divisor = side
    if pairs.shifted:
        return Side(upstream, np.where(divisor == -math.inf, math.inf, divisor))
    lifted = upstream * divisor.dtype.type(math.exp(headroom.lift(pairs.scale)))
    return Side(lifted / np.where(divisor == 0, math.inf, divisor), divisor)


def weights(tile: Array, row: Side, column: Side | None, shifted: bool, out: Array) -> Array:
    """W from the exponentials of the scores, or from the scores if shifted."""
    factor = row.upstream[:, None]
    if not shifted:
        if column is None:
            np.multiply(tile, factor, out=out)
        else:
            np.add(factor, column.upstream, out=out)
            out *= tile
        return out
    np.exp(np.subtract(tile, row.divisor[:, None], out=out), out=out)
    out *= factor
    if column is not None:
        out += np.exp(tile - column.divisor) * column.upstream
    return out
