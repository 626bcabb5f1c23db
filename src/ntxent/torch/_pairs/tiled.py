"""Log-sum-exp over all pairs, one tile of scores at a time: the n x n matrix never exists.

The mathematics of a tile is in `tile.py`. When the keys are the queries, only tiles on and above
the diagonal are computed: S is symmetric, so a tile's row sums belong to its rows and its column
sums to its columns, and W with h = g holds both terms of a pair. That is n^2 d flops forward (half
of the matrix), n^2 d to compute the tiles again backward unless they were kept, and 2 n^2 d for the
two products with W.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ntxent._pairs import headroom, places
from ntxent._pairs.sharing import Work, lanes, tile_rows
from ntxent._pairs.sides import Side
from ntxent.torch._pairs.excluded import exclusion
from ntxent.torch._pairs.threads import most_workers, side_by_side
from ntxent.torch._pairs.tile import LOG2E, Found, Pairs, filled_, found, log, prepared, weights

# 2 cores, float32, d=128, N=4096, forward + backward: tiles of 256, 512 and 1024 take 300, 290 and
# 289 ms recomputed, 291, 237 and 233 ms kept; a larger tile costs its square in memory.
TILE = 512
# Tiles kept for the backward pass, up to this many bytes, save their product and their
# exponentials.
KEEP_BYTES = 48 * 2**20


class Tiles:
    """Queries against keys (or against themselves), served one tile of scores at a time."""

    def __init__(self, pairs: Pairs, kept: Sequence[Tensor] = ()) -> None:
        self.symmetric = pairs.keys is None
        self.queries, self.keys = queries, keys = pairs.queries, pairs.others
        self.scale, self.shifted = float(pairs.scale), pairs.shifted()
        workers = most_workers(queries)
        self.height, self.width = kept[0].shape if kept else self.tile_sizes(workers)
        bands = parts(queries, self.height)
        self.key_tiles = bands if self.symmetric else parts(keys, self.width)
        self.lanes = 1 if self.symmetric else lanes(len(bands), len(self.key_tiles), workers)
        self.bands, self.query_tiles = len(bands), bands * self.lanes
        self.shape = len(self.query_tiles), len(self.key_tiles), self.symmetric
        self.workers = min(workers, places.at_once(*self.shape))
        self.excluded = exclusion(pairs.ids, self.height, self.width)

    def tile_sizes(self, workers: int) -> list[int]:
        """The height and the width of the first tile, the others having no more.

        Tiles that are kept have their own, whatever the number of threads has become since.
        """
        return [
            places.tile_size(len(rows), tile_rows(len(rows), TILE, workers))
            for rows in (self.queries, self.keys)
        ]

    def side_by_side(self, worker: Callable[[], Work]) -> None:
        """Have all tiles done; each of the workers has its own buffers and does some of them."""
        tiles = places.rounds(*self.shape, self.lanes)
        side_by_side(self.workers, tiles, self.symmetric, worker)

    def fill(self, row: int, column: int, buffer: Tensor | None = None) -> Tensor:
        """The scores of a tile, their exponentials if unshifted, in the buffer or new memory."""
        queries, keys = self.query_tiles[row], self.key_tiles[column]
        shape = queries.shape[0], keys.shape[0]
        tile = queries.new_empty(shape) if buffer is None else cut(buffer, shape)
        band = row % self.bands
        return filled_(tile, queries, keys, self.scale, self.shifted, self.excluded, band, column)

    def place(self, row: int, column: int) -> int:
        """The tile's number, by which it is kept: the same however many workers and lanes."""
        if self.symmetric:
            return column * (column + 1) // 2 + row
        return column * self.bands + row % self.bands

    def new_buffer(self) -> Tensor:
        """Memory for the largest tile."""
        return self.queries.new_empty(self.height, self.width)

    def mirrored(self, row: int, column: int) -> bool:
        """Whether the tile also stands for its mirror image below the diagonal."""
        return self.symmetric and row != column

    def most_kept(self) -> int:
        """How many tiles may be kept."""
        return KEEP_BYTES // (self.height * self.width * self.queries.element_size())


def parts(array: Tensor, size: int) -> tuple[Tensor, ...]:
    """Views of so many rows each; a split costs what three operations do, so not for one part."""
    return (array,) if array.shape[0] <= size else array.split(size)


def cut(buffer: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The beginning of the buffer as a tile, the last of which in a row or a column may be smaller.

    Contiguous like a tile that is kept, as the last bits of exponentials may depend on it.
    """
    return buffer if buffer.shape == shape else buffer.view(-1)[: shape[0] * shape[1]].view(shape)


class Sums:
    """Sums of exponentials that need no shift, for each tile of rows (or of columns)."""

    def __init__(self, tiles: Sequence[Tensor]) -> None:
        self.parts: list[Tensor | None] = [None] * len(tiles)

    def add(self, part: int, exponentials: Tensor, dim: int) -> None:
        before, found = self.parts[part], exponentials.sum(dim)
        self.parts[part] = found if before is None else before.add_(found)

    def found(self, empties: bool, lanes: int = 1) -> Found:
        sums = joined(self.parts)
        if lanes > 1:
            sums = sums.view(lanes, -1).sum(0)
        return found(log(sums), sums, empties)


class ShiftedSums(Sums):
    """Sums of exponentials below a running maximum; -inf is the maximum of no pairs at all."""

    def __init__(self, tiles: Sequence[Tensor]) -> None:
        super().__init__(tiles)
        self.tops = [tile.new_full(tile.shape[:1], -math.inf) for tile in tiles]

    def add(self, part: int, scores: Tensor, dim: int) -> None:
        before, total = self.tops[part], self.parts[part]
        top = torch.maximum(before, scores.amax(dim))
        shift = top.masked_fill(top == -math.inf, 0)
        found = (scores - shift.unsqueeze(dim)).exp_().sum(dim)
        if total is not None:
            found += total * (before - shift).exp_()
        self.parts[part], self.tops[part] = found, top

    def found(self, empties: bool, lanes: int = 1) -> Found:
        total, top = joined(self.parts), joined(self.tops)
        if lanes > 1:
            total, tops = total.view(lanes, -1), top.view(lanes, -1)
            top = tops.amax(0)
            shift = top.masked_fill(top == -math.inf, 0)
            total = (total * ((tops - shift) * LOG2E).exp2_()).sum(0)
        return found(log(total).add_(top), None, empties)


def joined(parts: Sequence[Tensor | None]) -> Tensor:
    """The parts as one vector."""
    found = [part for part in parts if part is not None]
    return found[0] if len(found) == 1 else torch.cat(found)


def forward(pairs: Pairs, *, keep: bool) -> tuple[Found, Found | None, list[Tensor]]:
    """What is found along rows and (if asked) columns, and first tiles for the backward pass."""
    tiles = Tiles(pairs)
    sums = ShiftedSums if tiles.shifted else Sums
    row_sums = sums(tiles.query_tiles)
    column_sums = sums(tiles.key_tiles) if pairs.columns else None
    most_kept = tiles.most_kept() if keep else 0
    kept: dict[int, Tensor] = {}

    def worker() -> Work:
        buffer = tiles.new_buffer()

        def do(row: int, column: int) -> None:
            number = tiles.place(row, column)
            keeps = number < most_kept
            values = tiles.fill(row, column, None if keeps else buffer)
            if keeps:
                kept[number] = values
            row_sums.add(row, values, 1)
            if tiles.mirrored(row, column):
                row_sums.add(column, values, 0)
            if column_sums is not None:
                column_sums.add(column, values, 0)

        return do

    tiles.side_by_side(worker)
    empties = tiles.excluded.empties
    columns_found = None if column_sums is None else column_sums.found(empties)
    rows_found = row_sums.found(empties, tiles.lanes)
    return rows_found, columns_found, [kept[number] for number in range(len(kept))]


def backward(
    pairs: Pairs, row_side: Side, column_side: Side | None, kept: Sequence[Tensor], by_keys: bool
) -> tuple[Tensor, Tensor | None]:
    """The gradients of queries and (if wanted) keys; in the symmetric case one, of both."""
    tiles = Tiles(pairs, kept)
    shifted, scale = tiles.shifted, tiles.scale
    factor = headroom.weight_scale(scale, shifted)
    by_lane = tiles.queries.new_zeros(tiles.lanes, *tiles.queries.shape)
    grad_keys = torch.zeros_like(tiles.keys) if by_keys else None
    query_parts = [part for lane in by_lane for part in parts(lane, tiles.height)]
    key_parts: Sequence[Tensor] | None = None
    if tiles.symmetric:
        key_parts = query_parts
    elif grad_keys is not None:
        key_parts = parts(grad_keys, tiles.width)
    row_sides = side_parts(prepared(row_side, scale, shifted), tiles.height) * tiles.lanes
    column_sides = row_sides if tiles.symmetric else None
    if column_side is not None:
        column_sides = side_parts(prepared(column_side, scale, shifted), tiles.width)

    def worker() -> Work:
        buffer, other = tiles.new_buffer(), tiles.new_buffer()

        def do(row: int, column: int) -> None:
            number = tiles.place(row, column)
            values = kept[number] if number < len(kept) else tiles.fill(row, column, other)
            above = None if column_sides is None else column_sides[column]
            weight = weights(values, row_sides[row], above, shifted, cut(buffer, values.shape))
            query_parts[row].addmm_(weight, tiles.key_tiles[column], alpha=factor)
            if key_parts is not None and (not tiles.symmetric or row != column):
                key_parts[column].addmm_(weight.T, tiles.query_tiles[row], alpha=factor)

        return do

    tiles.side_by_side(worker)
    return by_lane[0] if tiles.lanes == 1 else by_lane.sum(0), grad_keys


def side_parts(side: Side, size: int) -> list[Side]:
    """The factor and the divisor of each tile."""
    return [Side(*both) for both in zip(*(parts(x, size) for x in side), strict=True)]
