"""The losses for Keras."""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import tensorflow as tf

from ntxent._checks.keywords import named
from ntxent._spec import TEMPERATURE
from ntxent.tensorflow._arguments import taken
from ntxent.tensorflow._losses.info_nce import info_nce
from ntxent.tensorflow._losses.nt_xent import nt_xent
from ntxent.tensorflow._losses.sup_con import sup_con
from ntxent.tensorflow._modules.base import Labelled, Loss, column
from ntxent.tensorflow._operations.backend import OPS
from ntxent.tensorflow._processes.replicas import Unrun, unrun

MEAN = "sum_over_batch_size"
MEANS = {MEAN, "mean"}


@keras.saving.register_keras_serializable("ntxent")
class NTXentLoss(Loss):
    """`nt_xent` of two views as a Keras loss: `y_true` and `y_pred` are the two projections.

    Parameters
    ----------
    temperature : float, default 0.1
        As in `nt_xent`, a number. To learn it, call `nt_xent` in the model's `compute_loss`.
    denominator, normalize
        As in `nt_xent`.
    reduction : str, default "sum_over_batch_size"
        Keras' word for the mean over the batch, which is `nt_xent`'s "mean". As everywhere in
        Keras the batch is the N images: "sum" is over them, and "none" or None gives one value an
        image, the mean of its two rows.
    implementation
        As in `nt_xent`.
    cross_replica : bool, default False
        True makes one batch of those of all replicas of a `tf.distribute` strategy, as in
        `nt_xent`, with the bytes and the memory said there.
    name : str, default "nt_xent"
        What Keras calls it in its logs.
    dtype : str or DTypePolicy, optional
        What Keras casts both projections to; by default its `floatx`, float32.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        For a temperature or a choice that `nt_xent` refuses, for anything but two views, and where
        Keras doesn't run on TensorFlow.

    Notes
    -----
    Formula, memory and time are those of `nt_xent`. The loss is symmetric in the two projections,
    and a gradient flows into each that depends on the model. In `compile(loss=NTXentLoss())` and
    `fit(x, y)`, y is a fixed target, such as another model's projections of the same images. For a
    model that projects both views, override its `compute_loss` (see the example).

    Sample weights, one an image, multiply the losses of the images; all rows remain negatives. The
    loss grows with the batch, so that a smaller last batch has a smaller one: drop it
    (`drop_remainder=True`) where epochs are compared.

    Under a strategy Keras divides its means by the number of replicas, and its optimizers add up
    the gradients of all. With `cross_replica` the sum over replicas, of losses and of gradients, is
    then that of one process with the whole batch, whatever the reduction: `fit` takes the same
    steps. Without, each replica has its own negatives alone.

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

    @named
    def __init__(
        self,
        *,
        temperature: float = TEMPERATURE,
        denominator: str = "all",
        normalize: bool = True,
        reduction: str | None = MEAN,
        implementation: str | None = None,
        cross_replica: bool = False,
        name: str = "nt_xent",
        dtype: Any = None,
    ) -> None:
        options = {
            "denominator": denominator,
            "normalize": normalize,
            "implementation": implementation,
            "cross_replica": cross_replica,
        }
        super().__init__(temperature, options, reduction, name, dtype)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """One value an image, which Keras weighs and reduces.

        Parameters
        ----------
        y_true, y_pred : Tensor, shape (N, d)

        Returns
        -------
        Tensor, shape (N,)
            The mean of the image's two rows.
        """
        return tf.reduce_mean(tf.reshape(self._rows(nt_xent, y_true, y_pred), (2, -1)), 0)


@keras.saving.register_keras_serializable("ntxent")
class SupConLoss(Loss):
    """`sup_con` as a Keras loss: `y_true` are the labels, `y_pred` the projections.

    Parameters
    ----------
    temperature : float, default 0.1
        As in `sup_con`, a number. To learn it, call `sup_con` in the model's `compute_loss`.
    normalize
        As in `sup_con`.
    reduction : str, default "sum_over_batch_size"
        Keras' word for the mean, which is `sup_con`'s "mean": over the rows that have a positive.
        "sum" is over the same rows, and "none" or None gives one value a row, 0 without a positive.
    implementation, cross_replica, name, dtype
        As in `NTXentLoss`. Labels are never cast: they stay the integers that they are.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As for `NTXentLoss`, and for labels that aren't integers.

    Notes
    -----
    Formula, memory and time are those of `sup_con`. Labels may have shape (n,) or (n, 1). A batch
    in which no two rows have one label has the loss 0 and teaches nothing: choose batches large
    enough for the number of classes.

    Examples
    --------
    >>> import keras
    >>> import numpy as np
    >>> from ntxent.tensorflow import SupConLoss
    >>> model = keras.Sequential([keras.layers.Dense(2)])
    >>> model.compile(optimizer="adam", loss=SupConLoss(temperature=0.5))
    >>> x, labels = np.eye(4, dtype="float32"), np.array([7, 7, 9, 9])
    >>> history = model.fit(x, labels, verbose=0)
    """

    @named
    def __init__(
        self,
        *,
        temperature: float = TEMPERATURE,
        normalize: bool = True,
        reduction: str | None = MEAN,
        implementation: str | None = None,
        cross_replica: bool = False,
        name: str = "sup_con",
        dtype: Any = None,
    ) -> None:
        options = {
            "normalize": normalize,
            "implementation": implementation,
            "cross_replica": cross_replica,
        }
        super().__init__(temperature, options, reduction, name, dtype)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        """As Keras does it, but for the labels, which it would make floats of."""
        labels = taken("y_true", y_true)
        if unrun() and labels.dtype.is_floating:  # Keras has traced the mean of replicas' labels
            (labels,) = Unrun().gather(tf.cast(labels, tf.int64))
        if self.reduction == "mean_with_sample_weight":  # it divides by the sum of the weights
            anchors = OPS.classes(column(labels), self._across()).anchors
            weight = 1.0 if sample_weight is None else tf.cast(sample_weight, anchors.dtype)
            sample_weight = anchors * weight
        same = Labelled(partial(self.call, labels), self.reduction, self.name, self.dtype)
        loss = same(y_pred, y_pred, sample_weight)
        if self.reduction in MEANS:  # `call` has seen to it
            return loss
        return loss * self._share(y_pred, sample_weight, loss.dtype)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """One value a row, which Keras weighs and reduces.

        Parameters
        ----------
        y_true : Tensor of integers, shape (n,) or (n, 1)
            The labels.
        y_pred : Tensor, shape (n, d)
            The projections.

        Returns
        -------
        Tensor, shape (n,)
            0 for a row without a positive.
        """
        labels = column(y_true)
        rows = self._rows(sup_con, y_pred, labels)
        if self.reduction not in MEANS:
            return rows
        across = self._across()  # Keras' mean is over all rows of a replica, ours over the anchors
        total = tf.reduce_sum(OPS.classes(labels, across).anchors)
        if across is not None:
            total = across.mean(total)
        count = tf.cast(tf.shape(labels)[0], total.dtype)
        return rows * tf.cast(count / OPS.or_one(total), rows.dtype)


@keras.saving.register_keras_serializable("ntxent")
class InfoNCELoss(Loss):
    """`info_nce` as a Keras loss: `y_pred` are the queries, `y_true` their keys.

    Parameters
    ----------
    temperature : float, default 0.1
        As in `info_nce`, a number. To learn it, call `info_nce` in the model's `compute_loss`.
    symmetric, normalize
        As in `info_nce`.
    reduction : str, default "sum_over_batch_size"
        As in `NTXentLoss`; "none" gives one value a pair.
    implementation, cross_replica, name, dtype
        As in `NTXentLoss`.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As for `NTXentLoss`.

    Notes
    -----
    Formula, memory and time are those of `info_nce`. A gradient flows into each side that depends
    on the model. For negatives or ids call `info_nce` in the model's `compute_loss`.

    Examples
    --------
    >>> import tensorflow as tf
    >>> from ntxent.tensorflow import InfoNCELoss
    >>> loss = InfoNCELoss(temperature=0.5, symmetric=True)
    >>> round(float(loss(tf.eye(2), tf.eye(2))), 6)
    0.126928
    """

    @named
    def __init__(
        self,
        *,
        temperature: float = TEMPERATURE,
        symmetric: bool = False,
        normalize: bool = True,
        reduction: str | None = MEAN,
        implementation: str | None = None,
        cross_replica: bool = False,
        name: str = "info_nce",
        dtype: Any = None,
    ) -> None:
        options = {
            "symmetric": symmetric,
            "normalize": normalize,
            "implementation": implementation,
            "cross_replica": cross_replica,
        }
        super().__init__(temperature, options, reduction, name, dtype)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """One value a pair, which Keras weighs and reduces.

        Parameters
        ----------
        y_true, y_pred : Tensor, shape (N, d)
            Keys are `y_true`, queries `y_pred`.

        Returns
        -------
        Tensor, shape (N,)
        """
        return self._rows(info_nce, y_pred, y_true)
