"""The losses for Keras."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from ntxent import _spec
from ntxent.tensorflow._losses import nt_xent
from ntxent.tensorflow._ops import OPS


@keras.saving.register_keras_serializable("ntxent")
class NTXentLoss(keras.losses.Loss):
    """`nt_xent` of two views as a Keras loss: `y_true` and `y_pred` are the two projections.

    Parameters
    ----------
    temperature : float, default 0.1
        As in `nt_xent`, a number.
    denominator, normalize, implementation
        As in `nt_xent`.
    reduction : str, default "sum_over_batch_size"
        Keras' word for the mean over the 2N rows; "sum", and "none" or None, as in `nt_xent`.
    name : str, default "nt_xent"
        What Keras calls it in its logs.

    Raises
    ------
    TypeError, ValueError
        For a temperature or a choice that `nt_xent` refuses, and for anything but two views.

    Notes
    -----
    Formula, memory and time are those of `nt_xent`. Keras casts both projections to the loss's
    `dtype`, float32 unless set. A gradient flows into both: for a model that returns both
    projections, join them in one output and take them apart in a custom loss, or write the step
    with `nt_xent` and a `GradientTape`. Sample weights multiply the 2N row losses.

    Examples
    --------
    >>> import tensorflow as tf
    >>> from ntxent.tensorflow import NTXentLoss
    >>> loss = NTXentLoss(temperature=0.5)
    >>> z1 = tf.constant([[1.0, 0.0], [0.0, 1.0]])
    >>> z2 = tf.constant([[2.0, 0.0], [0.0, 3.0]])
    >>> round(float(loss(z1, z2)), 6)
    0.239545
    >>> loss.get_config()["temperature"]
    0.5
    """

    def __init__(
        self,
        *,
        temperature: float = _spec.TEMPERATURE,
        denominator: str = "all",
        normalize: bool = True,
        reduction: str | None = "sum_over_batch_size",
        implementation: str | None = None,
        name: str = "nt_xent",
        dtype: Any = None,
    ) -> None:
        _spec.check_number(temperature)
        _spec.check_choices(OPS, denominator, "none", implementation)
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.temperature = float(temperature)
        self.denominator = denominator
        self.normalize = normalize
        self.implementation = implementation

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """One value a row, which Keras reduces."""
        return nt_xent(
            y_true,
            y_pred,
            temperature=self.temperature,
            denominator=self.denominator,
            normalize=self.normalize,
            reduction="none",
            implementation=self.implementation,
        )

    def get_config(self) -> dict[str, Any]:
        """What `from_config` makes the same loss of."""
        return {
            **super().get_config(),
            "temperature": self.temperature,
            "denominator": self.denominator,
            "normalize": self.normalize,
            "implementation": self.implementation,
        }
