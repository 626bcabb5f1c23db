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
        As in `nt_xent`, a number. To learn it, call `nt_xent` in the model's `compute_loss`.
    denominator, normalize, implementation
        As in `nt_xent`.
    reduction : str, default "sum_over_batch_size"
        Keras' word for the mean over the batch, which is `nt_xent`'s "mean". As everywhere in
        Keras the batch is the N images: "sum" is over them, and "none" or None gives one value an
        image, the mean of its two rows.
    name : str, default "nt_xent"
        What Keras calls it in its logs.
    dtype : str or DTypePolicy, optional
        What Keras casts both projections to; by default its `floatx`, float32.

    Raises
    ------
    TypeError, ValueError
        For a temperature or a choice that `nt_xent` refuses, and for anything but two views.

    Notes
    -----
    Formula, memory and time are those of `nt_xent`. The loss is symmetric in the two projections,
    and a gradient flows into each that depends on the model. In `compile(loss=NTXentLoss())` and
    `fit(x, y)`, y is a fixed target, such as another model's projections of the same images. For a
    model that projects both views, override its `compute_loss` (see the example).

    Sample weights, one an image, multiply the losses of the images; all rows remain negatives. The
    loss grows with the batch, so that a smaller last batch has a smaller one: drop it
    (`drop_remainder=True`) where epochs are compared.

    Examples
    --------
    >>> import tensorflow as tf
    >>> from ntxent.tensorflow import NTXentLoss
    >>> loss = NTXentLoss(temperature=0.5)
    >>> z1 = tf.constant([[1.0, 0.0], [0.0, 1.0]])
    >>> z2 = tf.constant([[2.0, 0.0], [0.0, 3.0]])
    >>> round(float(loss(z1, z2)), 6)
    0.239545
    >>> import keras
    >>> class SimCLR(keras.Model):
    ...     def __init__(self, encoder):
    ...         super().__init__()
    ...         self.encoder = encoder
    ...
    ...     def call(self, views):
    ...         return [self.encoder(view) for view in views]
    ...
    ...     def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
    ...         return self.loss(*y_pred)
    >>> model = SimCLR(keras.layers.Dense(2))
    >>> model.compile(optimizer="adam", loss=loss)
    >>> history = model.fit((z1, z2), verbose=0)
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
        if not _spec.is_number(temperature):
            msg = (
                f"temperature must be a number here; got {type(temperature).__name__} "
                f"{temperature!r}. Pass a float; to learn it, call nt_xent in compute_loss."
            )
            raise TypeError(msg)
        _spec.check_range(temperature)
        _spec.check_choices(OPS, denominator, "none", implementation)
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.temperature = float(temperature)
        self.denominator = denominator
        self.normalize = normalize
        self.implementation = implementation

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """One value an image, which Keras weighs and reduces."""
        rows = nt_xent(
            y_true,
            y_pred,
            temperature=self.temperature,
            denominator=self.denominator,
            normalize=self.normalize,
            reduction="none",
            implementation=self.implementation,
        )
        return tf.reduce_mean(tf.reshape(rows, (2, -1)), 0)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` makes the same loss of."""
        return {
            **super().get_config(),
            "dtype": self.dtype,
            "temperature": self.temperature,
            "denominator": self.denominator,
            "normalize": self.normalize,
            "implementation": self.implementation,
        }
