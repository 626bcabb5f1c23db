"""Rows in tiles, and arrays of tiles that a loop can write to one by one."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

Tensor = Any


class Cut(NamedTuple):
    """Rows in tiles, (tiles, size, d), with their ids and their indices, (tiles, size)."""

    rows: Tensor
    ids: Tensor
    index: Tensor
    tiles: Any
    count: Any

    @property
    def filled(self) -> bool:
        """Whether the last tile is filled up, as far as is known."""
        return not isinstance(self.count, int) or self.count % self.tiles != 0

    @classmethod
    def of(cls, rows: Tensor, ids: Tensor, most: int) -> Cut:
        """The fewest tiles, all of nearly equal size; the last is filled up with zeros."""
        size = count(rows)
        tiles = -(-size // most)
        tiles = max(tiles, 1) if isinstance(tiles, int) else tf.maximum(tiles, 1)  # also of no rows
        return cls(cut(rows, tiles), cut(ids, tiles), cut(tf.range(size) + 1, tiles), tiles, size)


def sizes(array: Tensor) -> list[Any]:
    """The shape, with a tensor in place of each size that isn't known yet."""
    known = array.shape.as_list()  # numbers, where TensorFlow 1 has a `Dimension` in the shape
    return [tf.shape(array)[axis] if size is None else size for axis, size in enumerate(known)]


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


def transposed(tiles: Tensor) -> Tensor:
    """Each tile transposed."""
    return tf.transpose(tiles, (0, 2, 1))
