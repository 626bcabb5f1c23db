"""Losses in modes of TensorFlow that hold for a whole process, each in one of its own.

python tests/reported_tensorflow.py NAME ...         prints each name when it is done
python tests/reported_tensorflow.py --all NAME ...   of more cases
"""

from __future__ import annotations

import os
import sys
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import pytest
import tensorflow as tf

from _covering import each_once
from _shards import GRADIENT, LOSS, TEMPERATURE, errors, shards

SOME: Any = each_once  # or `list`, of all
ROWS = (9,)
FORMS = ("dense", "tiled", "tiles of 4")
NAMES = (
    "nt_xent",
    "nt_xent, three views",
    "nt_xent, decoupled, sum",
    "sup_con",
    "info_nce, symmetric, ids",
    "info_nce, queue",
    "info_nce, own negatives",
)


def loss_of(name: str, form: str) -> Any:
    """A function of float tensors and the temperature."""
    import ntxent.tensorflow
    from ntxent.tensorflow._pairs import tiled

    case = shards(name, ROWS)
    tiled.TILE, tiled.ALONE = (4, 8) if form == "tiles of 4" else (512, 2048)
    options = {**case.options, "implementation": "dense" if form == "dense" else "tiled"}

    def loss(*inputs: Any) -> Any:
        *arrays, temperature = inputs
        integers = {key: tf.constant(x) for key, x in case.whole_integers.items()}
        labels = [integers.pop("labels")] if "labels" in integers else []
        function = getattr(ntxent.tensorflow, case.loss)
        return function(*arrays, *labels, temperature=temperature, **integers, **options)

    return loss


def assert_right(name: str, form: str, found: Any) -> None:
    """The loss and all gradients are those of the whole batch in NumPy."""
    loss, *gradients, by_temperature = found
    error, slope = errors(name, ROWS, [loss], [gradients], [by_temperature])
    assert error < LOSS, (name, form, error)
    assert slope < GRADIENT, (name, form, slope)


def in_session(name: str, form: str, function: bool) -> Any:
    """In a graph of TensorFlow 1: batches of unknown size, or a `tf.function` inside of it."""
    loss, given = loss_of(name, form), (*shards(name, ROWS).whole_arrays, TEMPERATURE)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        if function:
            inputs = [tf.constant(x, tf.float64) for x in given]
            value = tf.function(loss)(*inputs)
        else:
            shapes = [(None, *np.shape(x)[1:])[: np.ndim(x)] for x in given]
            inputs = [tf.compat.v1.placeholder(tf.float64, shape) for shape in shapes]
            value = loss(*inputs)
        feed = {} if function else dict(zip(inputs, given, strict=True))
        return session.run([value, *tf.gradients(value, inputs)], feed)


def check_graphs_of_tensorflow_1() -> None:
    """In a program of TensorFlow 2, as a `tf.function` in a test of an Estimator's model."""
    for name, form, function in SOME(product(("nt_xent", "sup_con"), FORMS, (False, True))):
        assert_right(name, form, in_session(name, form, function))


def check_equality_of_tensorflow_1() -> None:
    """`tensor == tensor` is Python's identity, so that no pair would be left out."""
    tf.compat.v1.disable_tensor_equality()
    check_graphs_of_tensorflow_1()


def check_behavior_of_tensorflow_1() -> None:
    """Shapes are made of `Dimension`s too, and loops are of another kind."""
    tf.compat.v1.disable_v2_behavior()
    for name, form in SOME(product(NAMES, FORMS)):
        assert_right(name, form, in_session(name, form, function=False))
    check_graphs_of_tensorflow_1()


def derivatives(loss: Any, *inputs: Any) -> Any:
    """The loss and its gradients."""
    inputs = tuple(map(tf.convert_to_tensor, inputs))
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = loss(*inputs)
    return [value, *tape.gradient(value, inputs)]


def check_numerics() -> None:
    """No operation makes a NaN or an infinity of good data; a zero row is good."""
    from ntxent.tensorflow._pairs import graphs

    graphs.COMPILED_ROWS = 8  # XLA has no such checks
    tf.debugging.enable_check_numerics()
    for name, form, mode in SOME(product(NAMES, FORMS, ("eager", "graph"))):
        step = partial(derivatives, loss_of(name, form))
        step = step if mode == "eager" else tf.function(step)
        arrays = shards(name, ROWS).whole_arrays
        found = step(*arrays, tf.constant(TEMPERATURE, tf.float64))
        assert_right(name, form, [x.numpy() for x in found])
        first, *more = arrays
        zero = np.concatenate((0 * first[:1], first[1:]))
        step(zero, *more, tf.constant(0.001, tf.float64))  # where a shift is needed
    one = [x[:1] for x in arrays[:2]]
    for given in ([np.nan * first, *more], one):  # it is on; a row without any pair has log(0)
        with pytest.raises(tf.errors.InvalidArgumentError, match="Detected Infinity or NaN"):
            derivatives(loss_of("nt_xent", "tiled"), *given[:2], np.float64(TEMPERATURE))


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")
    names = sys.argv[1:]
    if names[0] == "--all":
        SOME, names = list, names[1:]
    for name in names:
        globals()[f"check_{name}"]()
        print(name, flush=True)
