"""The matrix form of the hot operation, whose second derivatives serve other forms too."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ntxent._pairs.sides import Pairs
from ntxent.tensorflow._pairs.tile import lowest, none_where

Tensor = Any


def pair_logsumexp(pairs: Pairs, columns: bool) -> Tensor:
    """The matrix form: n^2 scores at once, derivatives by TensorFlow."""
    same = tf.equal(pairs.query_ids[:, None], pairs.key_ids)
    scores = tf.matmul(pairs.queries * pairs.scale, pairs.others, transpose_b=True)
    rows = masked_logsumexp(scores, same, 1)
    return tf.concat((rows, masked_logsumexp(scores, same, 0)), 0) if columns else rows


def masked_logsumexp(scores: Tensor, excluded: Tensor, axis: int) -> Tensor:
    """Over the pairs that are not excluded; -inf, with no derivative of any order, without any."""
    empty = tf.reduce_all(excluded, axis)
    left_out = tf.logical_and(excluded, tf.logical_not(tf.expand_dims(empty, axis)))
    kept = tf.where(left_out, lowest(scores), scores)
    return none_where(empty, tf.reduce_logsumexp(kept, axis))
