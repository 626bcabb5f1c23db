"""Which pairs of a tile have equal ids, and so are no negatives of each other.

Comparing all ids of a tile costs as much as its product (1.4 ns a pair against 1.4 ns at d=128), so
both kinds of exclusion look at the few tiles that can hold an equal pair and leave the others
alone.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor

from ntxent._pairs.places import diagonals, overlap

# Of queries and of keys: a tensor, a period, or (for keys) None for those of the queries.
Ids = tuple[Any, Any]


class Exclusion(Protocol):
    """The excluded pairs of a grid of tiles."""

    empties: bool  # whether a row or a column may be left without any pair

    def fill_(self, scores: Tensor, row: int, column: int) -> None:
        """Put -inf at the excluded pairs of the tile that stands at (row, column)."""


def exclusion(ids: Ids, height: int, width: int) -> Exclusion:
    """Pairs of equal ids; an integer P stands for the ids 0 ... P-1, over and over."""
    query_ids, key_ids = ids
    if isinstance(query_ids, int):
        return Periodic(query_ids, height, width)
    return Equal(query_ids, query_ids if key_ids is None else key_ids, height, width)


class Periodic:
    """Row i and column k exclude each other where i - k is a multiple of the period."""

    def __init__(self, period: int, height: int, width: int) -> None:
        self.period, self.height, self.width = period, height, width
        self.empties = 1 in {period, height, width}

    def fill_(self, scores: Tensor, row: int, column: int) -> None:
        ahead = row * self.height - column * self.width
        rows, columns = scores.shape
        if not (ahead % self.period or rows % self.period or columns % self.period):
            # whole periods, as in a single tile: all the diagonals in one go
            shape = rows // self.period, columns // self.period, self.period
            strides = self.period * columns, self.period, columns + 1
            scores.as_strided(shape, strides).fill_(-math.inf)
            return
        for offset in diagonals(self.period, ahead, rows, columns):
            scores.diagonal(offset).fill_(-math.inf)


class Equal:
    """Rows and columns with one id; tiles whose ranges of ids don't meet hold none."""

    def __init__(self, query_ids: Tensor, key_ids: Tensor, height: int, width: int) -> None:
        self.empties = True
        self.queries, self.keys = query_ids.split(height), key_ids.split(width)
        self.itself = key_ids is query_ids and len(self.keys) == 1  # one tile, which has equal ids
        if not self.itself:
            self.query_ranges = id_ranges(self.queries)
            self.key_ranges = self.query_ranges if key_ids is query_ids else id_ranges(self.keys)

    def fill_(self, scores: Tensor, row: int, column: int) -> None:
        if self.itself or overlap(self.query_ranges[row], self.key_ranges[column]):
            same = self.queries[row].unsqueeze(1) == self.keys[column]
            scores.masked_fill_(same, -math.inf)


def id_ranges(tiles: tuple[Tensor, ...]) -> list[list[int]]:
    """The smallest and largest id of each tile."""
    ranges: list[list[int]] = torch.stack(
        [torch.stack(torch.aminmax(tile)) for tile in tiles]
    ).tolist()
    return ranges
