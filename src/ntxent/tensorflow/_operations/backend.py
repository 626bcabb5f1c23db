"""The `Ops` of TensorFlow: plain operations, which it differentiates, and the hot operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from ntxent._checks.arguments import is_number
from ntxent._checks.messages import Lines
from ntxent._labels import Classes, classes
from ntxent._spec import Options
from ntxent.tensorflow._operations.rows import dots, dots_ahead, unit
from ntxent.tensorflow._pairs.logsumexp import IMPLEMENTATIONS, pair_logsumexp
from ntxent.tensorflow._pairs.tile import lowest, none_where
from ntxent.tensorflow._pairs.tiles import count, sizes
from ntxent.tensorflow._processes.replicas import positive_means

Tensor = Any


class TensorflowOps:
    """`_protocol.Ops` for tensors, eager or symbolic."""

    BACKEND = "tensorflow"
    ARRAY_NAME = "tensorflow.Tensor"
    FLOATS = frozenset({tf.float64, tf.float32, tf.bfloat16, tf.float16})
    INTEGERS = frozenset(
        getattr(tf, f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)
    )
    IMPLEMENTATIONS = IMPLEMENTATIONS
    LINES = Lines(
        row="tf.reshape(z, (len(z), -1))",
        views="tf.unstack(z, axis=1)",
        rows="tf.reshape(z, (-1, z.shape[-1]))",
        labels="tf.repeat(labels, {})",
    )

    def accepts(self, value: Any) -> bool:
        return isinstance(value, tf.Tensor | tf.Variable)

    def odd(self, value: Any) -> str | None:
        if isinstance(value, tf.SparseTensor):
            return "a tf.SparseTensor. Pass tf.sparse.to_dense of it."
        if isinstance(value, tf.RaggedTensor):
            return "a tf.RaggedTensor. Pass its to_tensor(), if its rows are of one length."
        return None

    def device(self, array: Tensor) -> None:
        """Nothing: TensorFlow moves tensors by itself."""
        del array  # AutoGraph can't read a body that is a docstring alone

    def number(self, temperature: Tensor) -> None:
        """Nothing: a tensor's value isn't checked, as it may be symbolic."""
        del temperature

    def choose(self, device: Any) -> str:
        """What `implementation=None` means."""
        del device
        return "tiled"

    def devices(self) -> list[str]:
        """The devices of this machine."""
        return [device.name for device in tf.config.list_logical_devices()]

    def evaluate(
        self,
        loss: Callable[[Any, Sequence[Tensor], Any], Tensor],
        closed: Any,
        arrays: Sequence[Tensor],
        options: Options,
    ) -> Tensor:
        """The loss itself: tapes record what it is made of."""
        del closed  # for who has no tapes
        implementation = options.implementation
        chosen = implementation or self.choose(None)
        return loss(self, arrays, options._replace(implementation=chosen))

    def count(self, rows: Tensor) -> Any:
        return count(rows)

    def stack(self, *arrays: Tensor) -> Tensor:
        rows = arrays[0]
        if len(arrays) > 1:
            # `stack`, not `concat`: it refuses views whose unknown batch sizes turn out to differ.
            rows = tf.reshape(tf.stack(arrays), (-1, sizes(rows)[1]))
        return rows if rows.dtype == tf.float64 else tf.cast(rows, tf.float32)

    def stack_unit(self, *arrays: Tensor) -> Tensor:
        return unit(self.stack(*arrays))

    def inverse(self, temperature: Any, like: Tensor) -> Any:
        if is_number(temperature):
            return 1 / float(temperature)
        wide = tf.reshape(tf.cast(temperature, like.dtype), ())
        # The value may be unknown yet: NaN, 0 / 0, says what a check can't.
        one = tf.cast(tf.logical_and(wide > 0, tf.math.is_finite(wide)), wide.dtype)
        return one / (one * wide)

    def repeat(self, ids: Tensor, times: int) -> Tensor:
        return tf.concat([ids] * times, 0)  # `tile` lacks some of the integers

    def known(self, ids: Tensor) -> list[int] | None:
        return ids.numpy().tolist() if tf.executing_eagerly() else None

    def one_id(self, rows: Tensor, value: int) -> Tensor:
        return tf.fill((count(rows),), value)

    def classes(self, labels: Tensor, across: Any) -> Classes:
        labels = everyone = tf.cast(labels, tf.int64)
        index = None
        if across is not None:
            (everyone,), index = across.gather(labels), across.row_ids(labels)
        return classes(tf, labels, tf.sort(everyone), lambda n: tf.cast(n, tf.float64), index)

    # A positive is a few n-vectors of work, and the error of its float32 sum, divided by tau, would
    # be the largest error of the loss (docs/numerics.md): dots and all row losses are in float64.

    def pair_logsumexp(self, *args: Any, **kwargs: Any) -> Tensor:
        return tf.cast(pair_logsumexp(*args, **kwargs), tf.float64)

    def positive_means(self, rows: Tensor, classes: Classes, across: Any) -> Tensor:
        if across is not None:
            return positive_means(rows, classes, across)
        wide = tf.cast(rows, tf.float64)
        sums = tf.math.unsorted_segment_sum(wide, classes.groups, count(rows))
        divisor = tf.maximum(classes.others, 1)
        return (tf.gather(sums, classes.groups) - wide) / divisor[:, None]

    def partner_logits(self, rows: Tensor, partners: Any, scale: Any) -> Tensor:
        whole = len(getattr(partners, "shape", ()))
        found = dots(rows, partners) if whole else dots_ahead(rows, partners)
        return found * (scale if isinstance(scale, float) else tf.cast(scale, tf.float64))

    def contrast(self, lse: Tensor, positive: Tensor) -> Tensor:
        return self.softplus(lse - positive)

    def partner_contrast(
        self, lse: Tensor, rows: Tensor, partners: Any, scale: Any, within: Any = None
    ) -> Tensor:
        x = lse - self.partner_logits(rows, partners, scale)
        return self.softplus(x) if within is None else tf.where(within, x, self.softplus(x))

    def own_logsumexp(self, queries: Tensor, keys: Tensor, scale: Any) -> Tensor:
        scores = tf.einsum("id,ikd->ik", queries * scale, keys)
        return tf.cast(tf.reduce_logsumexp(scores, 1), tf.float64)

    def half(self, x: Tensor, index: int) -> Tensor:
        return tf.split(x, 2)[index]

    def softplus(self, x: Tensor) -> Tensor:
        """log(1 + exp(x)) to the last digit."""
        return tf.nn.softplus(x)

    def logaddexp(self, a: Tensor, b: Tensor) -> Tensor:
        nothing = tf.maximum(a, b) < lowest(a)
        found = tf.reduce_logsumexp(tf.stack((tf.where(nothing, tf.zeros_like(a), a), b)), 0)
        return none_where(nothing, found)

    def or_one(self, count: Tensor) -> Tensor:
        return tf.where(tf.equal(count, 0), tf.ones_like(count), count)

    def reduce(self, rows: Tensor, reduction: str, dtype: Any) -> Tensor:
        if reduction != "none":
            rows = tf.reduce_mean(rows) if reduction == "mean" else tf.reduce_sum(rows)
        return tf.cast(rows, dtype)


OPS = TensorflowOps()
