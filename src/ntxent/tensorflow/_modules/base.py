"""What the losses for Keras share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from ntxent._checks import arguments
from ntxent.tensorflow._arguments import KERAS, on_tensorflow
from ntxent.tensorflow._operations.backend import OPS
from ntxent.tensorflow._processes.replicas import Replicas, replicas


class Loss(keras.losses.Loss):
    """What the losses share: a number as temperature, and the options of the function."""

    def __init__(
        self,
        temperature: Any,
        options: dict[str, Any],
        reduction: str | None,
        name: str,
        dtype: Any,
    ) -> None:
        if not on_tensorflow():
            raise RuntimeError(KERAS.format(keras.backend.backend()))
        if not arguments.is_number(temperature):
            msg = (
                f"temperature must be a number here; got {type(temperature).__name__} "
                f"{temperature!r}. Pass a float; to learn it, call {name} in compute_loss."
            )
            raise TypeError(msg)
        arguments.check_range(temperature)
        denominator = options.get("denominator", "all")
        arguments.check_choices(OPS, denominator, "none", options["implementation"])
        arguments.check_switches(cross_replica=options["cross_replica"])
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.temperature = float(temperature)
        self.options = options

    def _rows(self, function: Callable[..., Any], *arrays: Any) -> tf.Tensor:
        """The losses of the rows, with this object's options."""
        return function(*arrays, temperature=self.temperature, reduction="none", **self.options)

    def _across(self) -> Replicas | None:
        """The replicas that hold the batch together."""
        return replicas(self.options["cross_replica"])

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        """As Keras does it, in the share that the replica has of the whole batch."""
        loss = super().__call__(y_true, y_pred, sample_weight)
        return loss * self._share(y_pred, sample_weight, loss.dtype)

    def _share(self, y_pred: Any, sample_weight: Any, dtype: Any) -> Any:
        """What a mean of Keras' lacks, which is over the replica's own rows or weights."""
        across = self._across()
        if across is None or self.reduction in {"sum", "none", None}:
            return 1
        divisor = tf.shape(y_pred)[0]
        if self.reduction == "mean_with_sample_weight" and sample_weight is not None:
            divisor = tf.reduce_sum(sample_weight)
        divisor = tf.cast(divisor, tf.float64)
        return tf.cast(divisor / across.mean(divisor), dtype)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` makes the same loss of.

        Returns
        -------
        dict
            The arguments that the loss was made with.
        """
        config = {**super().get_config(), "dtype": self.dtype, "temperature": self.temperature}
        return config | self.options


class Labelled(keras.losses.Loss):
    """Keras' casts, weights and reduction around a function of the projections alone."""

    def __init__(
        self, function: Callable[[Any], Any], reduction: str | None, name: str, dtype: Any
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.function = function

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """What the function says; there is no other target."""
        del y_true
        return self.function(y_pred)


def column(labels: Any) -> tf.Tensor:
    """Labels of shape (n,), also where Keras made (n, 1) of them."""
    labels = tf.convert_to_tensor(labels)
    return labels[:, 0] if len(labels.shape) == 2 and labels.shape[1] == 1 else labels
