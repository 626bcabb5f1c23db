"""What the functions are given, as tensors of TensorFlow of which enough is known."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ntxent.tensorflow._operations.backend import OPS
from ntxent.tensorflow._pairs.tiles import count

Tensor = Any

KERAS = (
    'the losses for Keras of ntxent.tensorflow need Keras to run on TensorFlow; it runs on "{}". '
    "Set the environment variable KERAS_BACKEND=tensorflow before anything imports keras, or call "
    "the functions of ntxent.jax or ntxent.torch in a training loop of your own."
)
UNKNOWN_RANK = (
    "{} must have a known number of axes; got a tensor of unknown rank. Say it by "
    "tf.ensure_shape(x, shape), with None for sizes that aren't known yet: (None, d) for rows, "
    "(None,) for labels and ids."
)
UNKNOWN_DTYPE = (
    "{} must be of a dtype that TensorFlow has; got a numpy.ndarray of {}. Convert it first."
)
EMPTY = (
    "expected at least one row; got none. The loss of an empty batch has no value: leave it out."
)
SWAPPED = (
    "sup_con takes the rows first and their labels second; got {} of shape {} for labels, which "
    "are rows, and one number a row for z. Keras passes labels first: use "
    "compile(loss=SupConLoss()) of ntxent.tensorflow."
)


def taken(name: str, value: Any) -> Any:
    """A NumPy array, or a variable of Keras', as a tensor of known rank; all else as it came."""
    if isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray):
        native = value.dtype.newbyteorder("=")  # a graph would read the bytes as they stand
        try:
            value = tf.convert_to_tensor(value.astype(native, copy=False))
        except (TypeError, ValueError) as error:
            raise TypeError(UNKNOWN_DTYPE.format(name, value.dtype)) from error
    elif isinstance(value, keras.Variable) and on_tensorflow():
        value = tf.convert_to_tensor(value)
    if OPS.accepts(value) and value.shape.rank is None:
        raise ValueError(UNKNOWN_RANK.format(name))
    return value


def on_tensorflow() -> bool:
    """Whether Keras' tensors are TensorFlow's."""
    return bool(keras.backend.backend() == "tensorflow")


def nonempty(arrays: Sequence[Any], reduction: str, cross_replica: bool) -> Sequence[Any]:
    """The arrays; where they turn out to be empty, and their mean so has no value, an error.

    XLA leaves errors out and gives NaN. A sum of none is 0, and other replicas may have rows.
    """
    if reduction != "mean" or cross_replica or not all(map(OPS.accepts, arrays)):
        return arrays
    if len(arrays) == 0 or any(not len(x.shape) or isinstance(count(x), int) for x in arrays):
        return arrays
    first, *rest = arrays
    with tf.control_dependencies([tf.debugging.Assert(count(first) > 0, [EMPTY])]):
        return [tf.identity(first), *rest]


def same_shape(views: Sequence[Any]) -> Sequence[Any]:
    """The views, each with all that is known of the shape of any; held to it when they run."""
    shapes = [view.shape for view in views if OPS.accepts(view)]
    if len(shapes) < len(views) or all(shape == shapes[0] for shape in shapes[1:]):
        return views
    try:
        shape = reduce(tf.TensorShape.merge_with, shapes)
    except ValueError:  # they differ already: `ntxent._checks` has the words for it
        return views
    return [tf.ensure_shape(view, shape) for view in views]


def check_order(z: Any, labels: Any) -> None:
    """Refuse labels, then rows: what Keras' `compile(loss=sup_con)` passes, labels made floats."""
    if not (OPS.accepts(z) and OPS.accepts(labels)):
        return
    floats = z.dtype.is_floating and labels.dtype.is_floating
    column = z.shape.rank == 1 or (z.shape.rank == 2 and z.shape[1] == 1)
    if floats and column and labels.shape.rank == 2:
        raise TypeError(SWAPPED.format(labels.dtype.name, tuple(labels.shape)))
