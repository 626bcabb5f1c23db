"""One batch over the replicas of a `tf.distribute` strategy: the `_protocol.Across` of TensorFlow.

There is one way to exchange, `all_gather` along the rows: it serves shards of different sizes, and
TensorFlow differentiates it to the sum over replicas, of which each takes its own rows.

A strategy may meet its replicas in no loop, condition or inner `tf.function`, so that all of this
is called outside of those; see `shards.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from ntxent._checks.arguments import check_switches
from ntxent._labels import Classes
from ntxent.tensorflow._pairs.tiles import count

Tensor = Any

OUTSIDE = (
    "cross_replica=True is for all replicas of a strategy together; this is its cross-replica "
    "context. Call the loss and tape.gradient in a function that you pass to strategy.run, or "
    "leave cross_replica out."
)


def replicas(cross_replica: bool) -> Replicas | None:
    """Those of the strategy that this runs in; None for one alone."""
    check_switches(cross_replica=cross_replica)
    if not cross_replica:
        return None
    if unrun():
        return Unrun()
    found = context()
    return Replicas(found.num_replicas_in_sync) if found.num_replicas_in_sync > 1 else None


def unrun() -> bool:
    """Whether a graph is made for no replica, as by Keras' `fit` for the shapes of losses."""
    return tf.distribute.in_cross_replica_context() and not tf.executing_eagerly()


def context() -> Any:
    """The replica that this is."""
    found = tf.distribute.get_replica_context()
    if found is None:
        raise RuntimeError(OUTSIDE)
    return found


class Replicas:
    """`_protocol.Across`; every method but `checked` and `index` is for all replicas at once."""

    def __init__(self, processes: int) -> None:
        self.processes = processes

    def checked(self, check: Callable[..., None], arguments: Sequence[Any]) -> Replicas:
        """The check of one shard: where one replica raises, its strategy ends all."""
        check(*arguments, alone=False)
        return self

    def row_ids(self, rows: Tensor) -> Tensor:
        """Every W-th number, from that of the replica on."""
        return context().replica_id_in_sync_group + self.processes * tf.range(count(rows))

    def mean(self, value: Any) -> Tensor:
        """In float64."""
        wide = tf.stop_gradient(tf.cast(value, tf.float64))
        return context().all_reduce(tf.distribute.ReduceOp.MEAN, wide)

    def gather(self, *arrays: Tensor) -> list[Tensor]:
        """The rows of all replicas, in one order everywhere, of each array."""
        # One by one: gradients of rows and of ids together aren't on one device, and not reduced.
        found = [context().all_gather(x, axis=0) for x in arrays]
        # A strategy forgets the whole shape.
        pairs = zip(found, arrays, strict=True)
        return [tf.ensure_shape(x, (None, *own.shape.as_list()[1:])) for x, own in pairs]


class Unrun(Replicas):
    """Of a graph for no replica. Whoever runs it all the same is told."""

    def __init__(self) -> None:
        super().__init__(1)

    def row_ids(self, rows: Tensor) -> Tensor:
        return tf.range(count(rows))

    def mean(self, value: Any) -> Tensor:
        return tf.cast(value, tf.float64)

    def gather(self, *arrays: Tensor) -> list[Tensor]:
        with tf.control_dependencies([tf.debugging.Assert(tf.constant(value=False), [OUTSIDE])]):
            return [tf.identity(x) for x in arrays]


def positive_means(rows: Tensor, classes: Classes, across: Replicas) -> Tensor:
    """As `_operations/backend.py` has it, of the classes of all replicas.

    With classes of c rows it is (A - 1) / (c - 1), A the matrix of which rows have one label: it is
    symmetric, so that the operation is its own transpose and its own gradient.
    """
    divisor = tf.maximum(classes.others, 1)[:, None]
    (groups,) = across.gather(classes.groups)

    @tf.custom_gradient
    def means(rows: Tensor) -> Any:
        (everyone,) = across.gather(tf.stop_gradient(rows))
        sums = tf.math.unsorted_segment_sum(everyone, groups, count(groups))
        return (tf.gather(sums, classes.groups) - rows) / divisor, means

    return means(tf.cast(rows, tf.float64))
