"""The mathematics of one tile of scores; and the whole of it where one tile is all there is.

With S = scale * Q K^T and upstream g (rows) and h (columns), over the pairs that count:

    row_lse_i = log sum_k exp(S_ik)            column_lse_k = log sum_i exp(S_ik)
    W_ik = g_i exp(S_ik - row_lse_i) + h_k exp(S_ik - column_lse_k)
    dQ = scale W K                             dK = scale W^T Q

When the keys are the queries, W with h = g holds both terms of a pair.

Pairs that don't count are at the lowest number or 0, not at -inf, nor is any infinity written down:
`tf.debugging.enable_check_numerics` stops at each. Only a row without any pair has one, as log(0).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from ntxent._pairs import headroom
from ntxent._pairs.functional_tile import factor, finite, prepared, weights
from ntxent._pairs.sides import Pairs, Side
from ntxent.tensorflow._pairs.tiles import count

Tensor = Any


class Found(NamedTuple):
    """Log-sum-exps, and what the gradient divides exponentials by; see `ntxent._pairs.Side`."""

    lse: Tensor
    divisor: Tensor


def fits(scale: Any, keys: Tensor) -> Any:
    """Whether exponentials of unit rows need no shift: a bool, if all is known, or a tensor."""
    rows, itemsize = count(keys), keys.dtype.size
    if isinstance(scale, float) and isinstance(rows, int):
        return not headroom.needs_shift(itemsize, scale, rows, unit=True)
    return scale + tf.math.log(tf.cast(rows, keys.dtype)) <= headroom.ROOM[itemsize]


def either(unshifted: Any, run: Callable[[bool], Any]) -> Any:
    """`run(shifted)`, as the scores are known to need it or not, or will turn out."""
    if isinstance(unshifted, bool):
        return run(not unshifted)
    found: Any = None

    def branch(shifted: bool) -> list[Tensor]:
        nonlocal found
        found = run(shifted)
        return [x for x in tf.nest.flatten(found) if x is not None]  # TensorFlow 1 refuses None

    values = iter(tf.cond(unshifted, lambda: branch(False), lambda: branch(True)))
    return tf.nest.map_structure(lambda x: None if x is None else next(values), found)


def values(queries: Tensor, keys: Tensor, scale: Tensor, excluded: Tensor, shifted: bool) -> Tensor:
    """The scores of a tile, or their exponentials; excluded pairs are at the lowest, or at 0."""
    scores = tf.matmul(queries * scale, keys, transpose_b=True)
    if shifted:
        return tf.where(excluded, lowest(scores), scores)
    return tf.where(excluded, tf.constant(0, scores.dtype), tf.exp(scores))


def lowest(scores: Tensor) -> Tensor:
    """The number that none is below; its exponential is 0, also below a maximum."""
    return tf.constant(scores.dtype.min, scores.dtype)


def none_where(empty: Tensor, lse: Tensor) -> Tensor:
    """-inf where there is no pair, with no derivative of any order; elsewhere as it is."""
    none = tf.math.log(tf.cast(tf.logical_not(empty), lse.dtype))
    return tf.where(empty, tf.zeros_like(lse), lse) + none


def total(tile: Tensor, axis: int, shifted: bool) -> tuple[Tensor, ...]:
    """The sum of exponentials, or that of scores below their maximum, and the maximum."""
    if not shifted:
        return (tf.reduce_sum(tile, axis),)
    top = tf.reduce_max(tile, axis)
    shift = finite(tf, top, lowest(top))
    return tf.reduce_sum(tf.exp(tile - tf.expand_dims(shift, axis)), axis), top


def logarithm(sums: Any, shifted: bool) -> Found:
    """The log-sum-exp, and the divisor: the sum, or for shifted scores the log-sum-exp.

    A row without any pair has the sum 0: its weights are 0, whatever number the divisor is.
    """
    found, *tops = sums
    lse = tf.math.log(found)
    if shifted:
        lse += finite(tf, tops[0], lowest(tops[0]))
    return Found(lse, tf.where(tf.equal(found, 0), tf.ones_like(found), lse if shifted else found))


def forward(pairs: Pairs, columns: bool, shifted: bool) -> tuple[Found, Found | None, Tensor]:
    """What is found along rows and (if asked) columns, and the tile, for the backward pass."""
    excluded = tf.equal(pairs.query_ids[:, None], pairs.key_ids)
    tile = values(pairs.queries, pairs.others, pairs.scale, excluded, shifted)
    row, *column = (
        logarithm(total(tile, axis, shifted), shifted) for axis in (1, 0)[: 1 + columns]
    )
    return row, column[0] if column else None, tile


def backward(
    pairs: Pairs, tile: Tensor, row: Side, column: Side | None, both: bool, shifted: bool
) -> list[Tensor]:
    """The gradients of queries and (if both) keys; in the symmetric case one, of both together."""
    scale, symmetric = pairs.scale, pairs.keys is None
    row = prepared(tf, row, scale, shifted)
    if column is not None:
        column = prepared(tf, column, scale, shifted)
    weight = weights(tf, tile, row, row if symmetric else column, shifted)
    grads = [tf.matmul(weight, pairs.others)]
    if both and not symmetric:
        grads.append(tf.matmul(weight, pairs.queries, transpose_a=True))
    return [x * factor(tf, scale, shifted) for x in grads]
