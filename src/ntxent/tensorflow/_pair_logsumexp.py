"""The hot operation in TensorFlow, and which implementation serves.

`dense` (`_dense.py`) is the matrix form: O(n^2) memory, every derivative.
`tiled` (`_tiled.py`) never holds the matrix: O(n d) memory; its second derivative is dense's.
Over replicas of a strategy both are in `_pairs_across.py`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import tensorflow as tf

from ntxent._pairs import sides, two_sides
from ntxent.tensorflow import _dense, _pairs_across, _tiled
from ntxent.tensorflow._dense import unpacked
from ntxent.tensorflow._tiled import count

Tensor = Any
IMPLEMENTATIONS: tuple[str, ...] = ("dense", "tiled")


def pair_logsumexp(
    queries: Tensor,
    keys: Tensor | None,
    scale: Any,
    query_ids: Tensor | int,
    key_ids: Tensor | int | None,
    *,
    unit: bool,
    columns: bool = False,
    implementation: str | None = None,
    across: Any = None,
) -> Tensor:
    """See `ntxent._protocol.Ops.pair_logsumexp`."""
    keys, key_ids = two_sides(queries, keys, query_ids, key_ids, columns)
    left = as_ids(query_ids, queries)
    right = left if key_ids is None else as_ids(key_ids, queries if keys is None else keys)
    scale = tf.convert_to_tensor(scale, queries.dtype)
    if across is not None:
        left, right = (tf.cast(x, tf.int64) for x in (left, right))  # collectives take few integers
        form = _pairs_across.dense if implementation == "dense" else _pairs_across.tiled
        return form(queries, keys, scale, left, right, unit, columns, across)
    if implementation == "dense":
        return _dense.pair_logsumexp(queries, keys, scale, left, right, columns)
    return tiled(queries, keys, scale, left, right, unit, columns)


def as_ids(ids: Any, rows: Tensor) -> Tensor:
    """The ids, one a row; of a period 0 ... P-1, over and over."""
    size = count(rows)
    if not len(getattr(ids, "shape", ())):
        return tf.range(size) % ids
    if isinstance(size, int) and isinstance(count(ids), int):
        return ids
    # Refuses another number of ids, once it is known; a graph would take a `reshape` for granted.
    return tf.gather(tf.stack((ids, tf.zeros((size,), ids.dtype))), 0)


def tiled(
    queries: Tensor,
    keys: Tensor | None,
    scale: Tensor,
    query_ids: Tensor,
    key_ids: Tensor,
    unit: bool,
    columns: bool,
) -> Tensor:
    """`_tiled.py` with its closed-form derivative, and under that dense's.

    Tapes also watch inside a custom gradient, and would have the loops keep every tile for a
    derivative that is never asked for: `stop_gradient` hides the tiles from them.
    """
    ids, symmetric, most = (query_ids, key_ids), keys is None, _tiled.TILE
    inputs = (queries, scale) if symmetric else (queries, scale, keys)
    lse = partial(_dense.pair_logsumexp, query_ids=query_ids, key_ids=key_ids, columns=columns)

    @tf.custom_gradient
    def value(*inputs: Tensor) -> Any:
        queries, scale, others = unpacked(map(tf.stop_gradient, inputs))
        unshifted = unit and _tiled.fits(scale, count(queries if symmetric else others))
        row, column = _tiled.forward(queries, others, scale, *ids, unshifted, columns, most)
        divisor = None if column is None else column.divisor

        @tf.custom_gradient
        def first(upstream: Tensor, *inputs: Tensor) -> Any:
            both = sides(tf.stop_gradient(upstream), row.divisor, divisor, count(queries))
            grad, *more = _tiled.backward(queries, others, scale, *ids, unshifted, *both, most)
            by_scale = tf.reduce_sum(queries * grad) / (2 * scale if symmetric else scale)

            def second(*cotangents: Tensor) -> Any:
                return _dense.second(lse, (upstream, *inputs), cotangents)

            return (grad, by_scale, *more), second

        found = row.lse if column is None else tf.concat((row.lse, column.lse), 0)
        return found, lambda upstream: first(upstream, *inputs)

    return value(*inputs)
