"""The hot operation over the replicas of a strategy: own rows against the rows of all.

With S = scale * Q K^T, upstream g of the rows and h of the columns, log-sum-exps L and C,

    W_ik = g_i exp(S_ik - L_i) + h_k exp(S_ik - C_k)
    dq_i = scale sum_k W_ik k_k                   dk_k = scale sum_i W_ik q_i

where i, or k, are the replica's own rows and sums are over the rows of all. What a gradient needs
of other replicas are rows, and (h, C) or (g, L): two numbers a row. Gradients are not exchanged.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from ntxent._pairs.sides import Pairs, Side, sides
from ntxent.tensorflow._pairs import tiled
from ntxent.tensorflow._pairs.closed_form import closed_form
from ntxent.tensorflow._pairs.dense import pair_logsumexp
from ntxent.tensorflow._pairs.tile import Found, fits
from ntxent.tensorflow._pairs.tiles import count
from ntxent.tensorflow._processes.replicas import Replicas

Tensor = Any


class Rows(NamedTuple):
    """Rows and the ids of pairs to leave out: of this replica, or of all."""

    rows: Tensor
    ids: Tensor


def dense(pairs: Pairs, unit: bool, columns: bool, across: Replicas) -> Tensor:
    """The matrices of own rows and all rows; TensorFlow differentiates them and the gathering."""
    del unit  # `reduce_logsumexp` always shifts
    left, right = Rows(pairs.queries, pairs.query_ids), Rows(pairs.others, pairs.key_ids)

    def lse(own: Rows, others: Rows) -> Tensor:
        return pair_logsumexp(against(own, Rows(*across.gather(*others)), pairs.scale), False)

    rows = lse(left, right)
    return tf.concat((rows, lse(right, left)), 0) if columns else rows


def against(own: Rows, everyone: Rows, scale: Tensor) -> Pairs:
    """Own rows and the rows of all."""
    return Pairs(own.rows, everyone.rows, scale, own.ids, everyone.ids)


def by_tiles(pairs: Pairs, unit: bool, columns: bool, across: Replicas) -> Tensor:
    """As `_pairs/logsumexp.py` has it: the closed form, hidden from tapes, over dense's."""

    def forward(*inputs: Tensor) -> Any:
        shard = Shard(pairs.of(*inputs), unit, columns, across)
        return shard.forward(), shard.backward

    def matrices(*inputs: Tensor) -> Tensor:
        return dense(pairs.of(*inputs), unit, columns, across)

    return closed_form(forward, matrices, pairs.inputs)


class Shard:
    """One call of the hot operation: its rows, and between its passes what both need."""

    def __init__(self, pairs: Pairs, unit: bool, columns: bool, across: Replicas) -> None:
        self.symmetric, self.columns = pairs.keys is None, columns
        self.scale, self.across = pairs.scale, across
        self.left = Rows(pairs.queries, pairs.query_ids)
        self.right = self.left if self.symmetric else Rows(pairs.others, pairs.key_ids)
        self.all_right = Rows(*across.gather(*self.right))
        self.all_left = self.all_right
        if not self.symmetric:
            self.all_left = Rows(*across.gather(*self.left))
        self.unshifted = unit and fits(self.scale, self.all_right.rows)

    def forward(self) -> Tensor:
        """The log-sum-exp of own queries, then of own keys if columns were asked for."""
        row = self.found(self.left, self.all_right)
        self.divisors = row.divisor, None
        if not self.columns:
            return row.lse
        column = self.found(self.right, self.all_left)
        self.divisors = row.divisor, column.divisor
        return tf.concat((row.lse, column.lse), 0)

    def found(self, own: Rows, everyone: Rows) -> Found:
        """Of own rows over the rows of all."""
        pairs = against(own, everyone, self.scale)
        found: Found = tiled.forward(pairs, self.unshifted, False, tiled.TILE, False)[0]
        return found

    def backward(self, upstream: Tensor) -> tuple[Tensor, ...]:
        """The gradients of own queries, of the scale, and of own keys if there are any.

        That of the scale holds the pairs of own queries: summed over replicas it is all of it.
        """
        row, column = sides(upstream, *self.divisors, rows=count(self.left.rows))
        rows, columns = self.gathered(row), self.gathered(column)
        if self.symmetric:
            grad = self.gradient(self.left, self.all_right, row, rows)
            return grad, tf.reduce_sum(self.left.rows * grad) / (2 * self.scale)
        if column is None:  # its weights are 0
            zeros = tf.zeros_like(self.right.rows[:, 0])
            column = Side(zeros, zeros + zeros.dtype.max)
        grad = self.gradient(self.left, self.all_right, row, columns)
        by_scale = tf.reduce_sum(self.left.rows * grad) / self.scale
        return grad, by_scale, self.gradient(self.right, self.all_left, column, rows)

    def gathered(self, side: Side | None) -> Side | None:
        """The side of all replicas."""
        return None if side is None else Side(*self.across.gather(*side))

    def gradient(self, own: Rows, everyone: Rows, side: Side, others: Side | None) -> Tensor:
        """Of own rows, from the rows of all."""
        pairs, most = against(own, everyone, self.scale), tiled.TILE
        return tiled.backward(pairs, self.unshifted, side, others, most, None, False)[0]
