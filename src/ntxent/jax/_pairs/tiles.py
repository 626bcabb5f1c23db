"""The tiles of both sides as arrays, and the scores of one tile."""

from __future__ import annotations

import math
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ntxent._pairs.places import grid, tile_size
from ntxent._pairs.sides import Pairs


class Plan(NamedTuple):
    """What is known before there are numbers: jit compiles once for each."""

    queries: int  # how many
    keys: int
    height: int
    width: int
    columns: bool
    symmetric: bool
    shifted: bool | None  # None for a traced scale: decided when it runs
    keeps: bool = False  # all tiles of the forward pass, for the backward pass

    def passes(self) -> list[tuple[bool, list[tuple[int, int]]]]:
        """Lists of tiles (row, column), each with whether they stand for their mirror images."""
        rows, columns = -(-self.queries // self.height), -(-self.keys // self.width)
        places = list(grid(rows, columns, self.symmetric))
        if not self.symmetric:
            return [(False, places)]
        diagonal = [place for place in places if place[0] == place[1]]
        above = [place for place in places if place[0] != place[1]]
        return [(False, diagonal), (True, above)] if above else [(False, diagonal)]

    @property
    def elements(self) -> int:
        """Of all tiles together."""
        return self.height * self.width * sum(len(places) for _, places in self.passes())


class Grid(NamedTuple):
    """Queries and keys in tiles, (tiles, size, d), and their ids, (tiles, size)."""

    queries: Array
    keys: Array
    scale: Array
    query_ids: Array
    key_ids: Array

    @classmethod
    def of(cls, plan: Plan, pairs: Pairs) -> Grid:
        """Cut as planned; without keys the queries serve."""
        queries, keys, scale, query_ids, key_ids = pairs
        left = cut(queries, plan.height)
        right = left if keys is None else cut(keys, plan.width)
        return cls(left, right, scale, cut(query_ids, plan.height), cut(key_ids, plan.width))

    def values(self, plan: Plan, row: Array, column: Array, shifted: bool) -> Array:
        """The scores of a tile, or their exponentials; excluded pairs are at -inf, or at 0."""
        scores = similarities(self.queries[row], self.keys[column]) * self.scale
        excluded = self.query_ids[row][:, None] == self.key_ids[column][None]
        if plan.queries % plan.height:
            excluded |= (row * plan.height + jnp.arange(plan.height) >= plan.queries)[:, None]
        if plan.keys % plan.width:
            excluded |= (column * plan.width + jnp.arange(plan.width) >= plan.keys)[None]
        scores = jnp.where(excluded, -math.inf, scores)
        # The barrier keeps XLA from computing all this again for each use of it. Two cores, a tile
        # of 512 x 512, d = 128: 447 microseconds for row and column sums, without it 761.
        values: Array = lax.optimization_barrier(scores if shifted else jnp.exp(scores))
        return values


def similarities(a: Array, b: Array) -> Array:
    """The dot products of all rows of `a` with all of `b`, summed over a few columns at a time.

    XLA adds up one product after the other: rows that are alike are off by 9 epsilons (2^-24) at
    d = 2048, in parts of 256 by 2, at a tenth more time.
    """
    dim = a.shape[1]
    if not isinstance(dim, int):
        return product(a, b.T)
    width = tile_size(dim, 256)
    parts = [product(a[:, i : i + width], b[:, i : i + width].T) for i in range(0, dim, width)]
    return reduce(add, parts)


def product(a: Array, b: Array) -> Array:
    """The matrix product with all the digits of its dtype, unless the user has asked for fewer.

    Left alone, a TPU rounds float32 factors to bfloat16 and a GPU to TensorFloat-32.
    """
    config: Any = jax.config
    asked = config.jax_default_matmul_precision
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST if asked is None else None)


def cut(rows: Array, size: int) -> Array:
    """Rows in tiles of one size, the last filled up with zeros."""
    missing = -len(rows) % size
    filled = jnp.pad(rows, [(0, missing), *[(0, 0)] * (rows.ndim - 1)])
    return filled.reshape(-1, size, *rows.shape[1:])


def uncut(tiles: Array, count: int) -> Array:
    """The rows that were cut, so many of them."""
    return tiles.reshape(-1, *tiles.shape[2:])[:count]


def put(tiles: Array, index: Array, tile: Array) -> Array:
    """The tiles with one of them replaced, in place where XLA runs it."""
    replaced: Array = lax.dynamic_update_index_in_dim(tiles, tile, index, 0)
    return replaced


def alike(*arrays: Any) -> list[Any]:
    """The arrays, each made to vary over every axis of a mesh that one of them varies over.

    Under `shard_map` that is part of a type: `scan` asks for the same before and after a step, and
    `custom_vjp` of an array and its gradient. What is selected varies where the choice does; XLA
    leaves it out. None stays None.
    """
    given = [x for x in arrays if x is not None]
    if not jax.sharding.get_abstract_mesh().manual_axes:  # outside of shard_map
        return list(arrays)
    zeros = [jnp.zeros_like(x, shape=(), dtype=int) for x in given]
    zero = reduce(add, zeros)
    same = zero == 0
    # select leaves the dtype alone: int64 exists where x64 is off, for those who made it before
    return [None if x is None else lax.select(same, x, x) for x in arrays]
