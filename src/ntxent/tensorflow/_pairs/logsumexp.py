"""The hot operation in TensorFlow, and which implementation serves.

`dense` (`dense.py`) is the matrix form: O(n^2) memory, every derivative.
`tiled` (`tiled.py`) never holds the matrix: O(n d) memory; its second derivative is dense's.
Over replicas of a strategy both are in `_processes/shards.py`.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ntxent._pairs.sides import sides, two_sides
from ntxent._spec import Options
from ntxent.tensorflow._pairs import dense, tiled
from ntxent.tensorflow._pairs.closed_form import closed_form
from ntxent.tensorflow._pairs.tile import fits
from ntxent.tensorflow._pairs.tiles import count
from ntxent.tensorflow._processes import shards

Tensor = Any
IMPLEMENTATIONS: tuple[str, ...] = ("dense", "tiled")


def pair_logsumexp(
    queries: Tensor,
    keys: Tensor | None,
    scale: Any,
    query_ids: Tensor | int,
    key_ids: Tensor | int | None,
    options: Options,
    columns: bool = False,
) -> Tensor:
    """See `ntxent._protocol.Ops.pair_logsumexp`."""
    across, unit = options.across, options.normalize
    keys, key_ids = two_sides(queries, keys, query_ids, key_ids, columns)
    left = as_ids(query_ids, queries)
    right = left if key_ids is None else as_ids(key_ids, queries if keys is None else keys)
    unshifted = unit and fits(scale, queries if keys is None else keys)
    scale = tf.convert_to_tensor(scale, queries.dtype)
    if across is not None:
        left, right = (tf.cast(x, tf.int64) for x in (left, right))  # collectives take few integers
        form = shards.dense if options.implementation == "dense" else shards.by_tiles
        return form(queries, keys, scale, left, right, unit, columns, across)
    if options.implementation == "dense":
        return dense.pair_logsumexp(queries, keys, scale, left, right, columns)
    return by_tiles(queries, keys, scale, left, right, unshifted, columns)


def as_ids(ids: Any, rows: Tensor) -> Tensor:
    """The ids, one a row; of a period 0 ... P-1, over and over."""
    size = count(rows)
    if not len(getattr(ids, "shape", ())):
        return tf.range(size) % ids
    if isinstance(size, int) and isinstance(count(ids), int):
        return ids
    # Refuses another number of ids, once it is known; a graph would take a `reshape` for granted.
    return tf.gather(tf.stack((ids, tf.zeros((size,), ids.dtype))), 0)


def by_tiles(
    queries: Tensor,
    keys: Tensor | None,
    scale: Tensor,
    query_ids: Tensor,
    key_ids: Tensor,
    unshifted: Any,
    columns: bool,
) -> Tensor:
    """`tiled.py` with its closed-form derivative, and under that dense's."""
    ids, symmetric, most = (query_ids, key_ids), keys is None, tiled.TILE

    def forward(queries: Tensor, scale: Tensor, keys: Tensor | None = None) -> Any:
        arguments = queries, keys, scale, *ids, unshifted
        row, column, kept = tiled.forward(*arguments, columns, most, True)
        divisor = None if column is None else column.divisor

        def gradient(upstream: Tensor) -> tuple[Tensor, ...]:
            both = sides(upstream, row.divisor, divisor, count(queries))
            grad, *more = tiled.backward(*arguments, *both, most, kept)
            by_scale = tf.reduce_sum(queries * grad) / (2 * scale if symmetric else scale)
            return grad, by_scale, *more

        return row.lse if column is None else tf.concat((row.lse, column.lse), 0), gradient

    def matrix(queries: Tensor, scale: Tensor, keys: Tensor | None = None) -> Tensor:
        return dense.pair_logsumexp(queries, keys, scale, *ids, columns)

    return closed_form(forward, matrix, (queries, scale) if symmetric else (queries, scale, keys))
