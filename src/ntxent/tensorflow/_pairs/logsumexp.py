"""The hot operation in TensorFlow, and which implementation serves.

`dense` (`dense.py`) is the matrix form: O(n^2) memory, every derivative.
`tiled` (`tiled.py`) never holds the matrix: O(n d) memory; its second derivative is dense's.
Over replicas of a strategy both are in `_processes/shards.py`.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ntxent._pairs.sides import Pairs, pairs_of, sides
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
    pairs = pairs_of(as_ids, queries, keys, scale, query_ids, key_ids, columns)
    unshifted = unit and fits(scale, pairs.others)
    pairs = pairs._replace(scale=tf.convert_to_tensor(scale, queries.dtype))
    if across is not None:
        # Collectives take few integers.
        left, right = (tf.cast(x, tf.int64) for x in (pairs.query_ids, pairs.key_ids))
        pairs = pairs._replace(query_ids=left, key_ids=right)
        form = shards.dense if options.implementation == "dense" else shards.by_tiles
        return form(pairs, unit, columns, across)
    if options.implementation == "dense":
        return dense.pair_logsumexp(pairs, columns)
    return by_tiles(pairs, unshifted, columns)


def as_ids(ids: Any, rows: Tensor) -> Tensor:
    """The ids, one a row; of a period 0 ... P-1, over and over."""
    size = count(rows)
    if not len(getattr(ids, "shape", ())):
        return tf.range(size) % ids
    if isinstance(size, int) and isinstance(count(ids), int):
        return ids
    # Refuses another number of ids, once it is known; a graph would take a `reshape` for granted.
    return tf.gather(tf.stack((ids, tf.zeros((size,), ids.dtype))), 0)


def by_tiles(pairs: Pairs, unshifted: Any, columns: bool) -> Tensor:
    """`tiled.py` with its closed-form derivative, and under that dense's."""
    most = tiled.TILE

    def forward(*inputs: Tensor) -> Any:
        here = pairs.of(*inputs)
        row, column, kept = tiled.forward(here, unshifted, columns, most, True)
        divisor = None if column is None else column.divisor

        def gradient(upstream: Tensor) -> tuple[Tensor, ...]:
            both = sides(upstream, row.divisor, divisor, count(here.queries))
            grad, *more = tiled.backward(here, unshifted, *both, most, kept)
            by_scale = tf.reduce_sum(here.queries * grad) / here.scale
            return grad, by_scale / 2 if here.keys is None else by_scale, *more

        return row.lse if column is None else tf.concat((row.lse, column.lse), 0), gradient

    def matrix(*inputs: Tensor) -> Tensor:
        return dense.pair_logsumexp(pairs.of(*inputs), columns)

    return closed_form(forward, matrix, pairs.inputs)
