"""The hot operation in JAX, and which implementation serves.

`dense` is the matrix form: O(n^2) memory, every transformation of JAX.
`tiled` (`tiled.py`) never holds the matrix: O(n d) memory, reverse mode. Of many processes'
batch, `_processes/shards.py`.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ntxent._pairs import headroom, places
from ntxent._pairs.sides import Pairs, pairs_of
from ntxent._spec import Options
from ntxent.jax._pairs import tiled
from ntxent.jax._pairs.tiles import Plan, alike, similarities
from ntxent.jax._processes import shards
from ntxent.jax._processes.mesh import JaxAcross
from ntxent.jax._processes.shards import Spread

IMPLEMENTATIONS: tuple[str, ...] = ("dense", "tiled")


def pair_logsumexp(
    queries: Array,
    keys: Array | None,
    scale: Any,
    query_ids: Array | int,
    key_ids: Array | int | None,
    options: Options,
    columns: bool = False,
) -> Array:
    """See `ntxent._protocol.Ops.pair_logsumexp`."""
    across, unit = options.across, options.normalize
    pairs = pairs_of(as_ids, queries, keys, scale, query_ids, key_ids, columns)
    if options.implementation == "dense":
        return dense(pairs, columns, across)
    sizes = queries.shape[0], pairs.others.shape[0]
    most = sizes[1] if across is None else across.processes * max(sizes)
    shifted = None if unit else True
    if unit and isinstance(scale, float):
        shifted = headroom.needs_shift(queries.dtype.itemsize, scale, most, unit)
    pairs = pairs._replace(scale=jnp.asarray(scale, queries.dtype))
    if across is not None:
        spread = Spread(across, tiled.TILE, columns, shifted, most)
        varied = alike(*pairs, across.row_ids(queries))[:-1]
        return shards.pair_logsumexp(spread, Pairs(*varied))
    height, width = (places.tile_size(size, tiled.TILE) for size in sizes)
    plan = Plan(*sizes, height, width, columns, pairs.keys is None, shifted)
    held = plan.elements * queries.dtype.itemsize
    plan = plan._replace(keeps=held <= tiled.KEEP_BYTES)
    return tiled.pair_logsumexp(plan, Pairs(*alike(*pairs)))


def as_ids(ids: Array | int, rows: Array) -> Array:
    """The ids that a period stands for: 0 ... P-1, over and over."""
    return ids if isinstance(ids, Array) else jnp.arange(rows.shape[0]) % ids


def dense(pairs: Pairs, columns: bool, across: JaxAcross | None = None) -> Array:
    """The matrix form: n^2 scores at once, derivatives by JAX; of gathered rows too."""
    if across is not None:
        left, right = (pairs.queries, pairs.query_ids), (pairs.others, pairs.key_ids)
        found = [gathered_dense(across, pairs.scale, left, right)]
        if columns:
            found.append(gathered_dense(across, pairs.scale, right, left))
        return jnp.concatenate(found)
    same = pairs.query_ids[:, None] == pairs.key_ids[None]
    scores = similarities(pairs.queries * pairs.scale, pairs.others)
    rows = masked_logsumexp(scores, same, 1)
    return jnp.concatenate((rows, masked_logsumexp(scores, same, 0))) if columns else rows


def gathered_dense(across: JaxAcross, scale: Any, own: Any, others: Any) -> Array:
    """Log-sum-exp of the own rows over the others of all processes, both with their ids."""
    (rows, ids), (keys, key_ids) = own, across.gathered(others)
    return dense(Pairs(rows, keys, scale, ids, key_ids), False)


def masked_logsumexp(scores: Array, excluded: Array, axis: int) -> Array:
    """Over the pairs that are not excluded; -inf, with no derivative of any order, without any."""
    empty = excluded.all(axis)
    kept = jnp.where(excluded & ~jnp.expand_dims(empty, axis), -math.inf, scores)
    return jnp.where(empty, -math.inf, jax.nn.logsumexp(kept, axis))
