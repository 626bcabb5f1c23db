"""Where tiles lie, and where in them the pairs of equal ids: plain integers for every backend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def tile_size(rows: int, most: int) -> int:
    """The size that cuts so many rows into the fewest tiles, all of nearly equal size."""
    return -(-rows // -(-rows // most))


def grid(rows: int, columns: int, symmetric: bool) -> Iterator[tuple[int, int]]:
    """All tiles of so many rows and columns of tiles, or those on and above the diagonal."""
    for row in range(rows):
        for column in range(row if symmetric else 0, columns):
            yield row, column


def rounds(rows: int, columns: int, symmetric: bool, lanes: int = 1) -> Iterator[tuple[int, int]]:
    """The same tiles in rounds: no two of one round share a row, a column, or a mirror image's.

    In a round row + column is the same, mod the longer side. With lanes (`sharing.lanes`) the rows
    are those of the first lane, then those of the next; lane l has the columns l, l + lanes, ...
    """
    bands = rows // lanes
    longer = max(bands, -(-columns // lanes))
    for turn in range(longer):
        for row in range(rows):
            lane, band = divmod(row, bands)
            column = lane + lanes * ((turn - band) % longer)
            if column < columns and (row <= column or not symmetric):
                yield row, column


def at_once(rows: int, columns: int, symmetric: bool) -> int:
    """How many tiles a round has at most."""
    return rows // 2 + 1 if symmetric else min(rows, columns)


def diagonals(period: int, ahead: int, height: int, width: int) -> range:
    """The diagonals of a tile on which row - column is a multiple of the period.

    The tile's first row is `ahead` of its first column; diagonal k holds the elements (i, i + k).
    """
    first = ahead - (ahead + height - 1) // period * period
    return range(first, width, period)


def overlap(a: Sequence[int], b: Sequence[int]) -> bool:
    """Whether two closed ranges (lowest, highest) meet."""
    return a[0] <= b[1] and b[0] <= a[1]
