"""What TensorFlow's users expect beyond the shared suite: of tapes, variables, derivatives."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from _tensorflow_nt_xent import (
    IMPLEMENTATIONS,
    MODES,
    assert_right,
    chosen,
    derivatives,
    in_mode,
    views_of,
)
from _tolerances import assert_within, relative_error, tolerance
from ntxent import reference

pytestmark = pytest.mark.only("tensorflow")


@pytest.fixture
def tf() -> Any:
    import tensorflow as tf

    tf.keras.utils.set_random_seed(0)
    return tf


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request: Any, monkeypatch: Any) -> str:
    return chosen(request.param, monkeypatch)


@pytest.mark.covering
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_right_on_both_sides_of_the_shift(implementation: str, mode: str, dtype: str) -> None:
    views = views_of(9, dtype=dtype)
    fn = derivatives(implementation, mode)
    for temperature in (0.5, 0.05, 0.01, 0.001):
        assert_right(fn(*views, np.array(temperature, dtype)), views, temperature)


def test_a_persistent_tape_and_one_watched_input(tf: Any, implementation: str) -> None:
    from ntxent.tensorflow import nt_xent

    inputs = [tf.constant(x, tf.float64) for x in (*views_of(), 0.2)]
    for place, expected in enumerate(derivatives(implementation)(*inputs)[1:]):
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(inputs[place])
            loss = nt_xent(*inputs[:2], temperature=inputs[2], implementation=implementation)
        for _ in range(2):
            grads = tape.gradient(loss, inputs)
            assert [grad is None for grad in grads].count(True) == 2
            error = relative_error(grads[place].numpy(), expected, 1)
            assert_within(error, 1e-14, "gradient")


@pytest.mark.parametrize("mode", MODES)
def test_second_and_third_derivatives(tf: Any, implementation: str, mode: str, every: bool) -> None:
    """Of a product and a penalty with the gradient: dense's and a quotient's; with a zero row."""
    from ntxent.tensorflow import nt_xent

    z1, z2 = views_of()
    direction = np.cos(np.arange(15.0)).reshape(5, 3)

    def orders(name: str, *inputs: Any) -> list[Any]:
        with tf.GradientTape() as third:
            third.watch(inputs)
            with tf.GradientTape() as second:
                second.watch(inputs)
                with tf.GradientTape() as tape:
                    tape.watch(inputs)
                    loss = nt_xent(*inputs[:2], temperature=inputs[2], implementation=name)
                grads = tape.gradient(loss, inputs)
                slope = tf.reduce_sum(grads[0] * direction + grads[1] ** 2) + grads[2]
            products = second.gradient(slope, inputs)
            penalty = tf.reduce_sum(products[0] ** 2 + products[1] * direction)
        return [slope, *products, *third.gradient(penalty, inputs)]

    def run(name: str, mode: str, step: float = 0.0) -> list[Any]:
        inputs = z1 + step * direction, z2, 0.2 + step
        fn = in_mode(mode, partial(orders, name))
        return [x.numpy() for x in fn(*(tf.constant(x, tf.float64) for x in inputs))]

    if mode == "eager" or every:
        up, middle, down = (run(implementation, "eager", step) for step in (1e-6, 0, -1e-6))
        product = (middle[1] * direction).sum() + middle[3]
        quotient = (up[0] - down[0]) / 2e-6
        assert_within(relative_error(quotient, product), 1e-7, "difference quotient")
    z1[2] = 0
    for got, expected in zip(run(implementation, mode), run("dense", "eager"), strict=True):
        error = relative_error(got, expected, np.abs(expected).max())
        assert_within(error, 1e-10, "derivative of dense")


@pytest.mark.parametrize("mode", MODES)
def test_variables_of_tensorflow_and_keras_get_their_gradients(
    tf: Any, implementation: str, mode: str
) -> None:
    """As views, and as the temperature, which may be a layer's weight."""
    keras = tf.keras
    layer = keras.layers.Layer(dtype="float64")
    weight = layer.add_weight(shape=(), initializer="ones")
    z1, z2 = views_of()
    views = tf.Variable(z1), keras.Variable(z2, dtype="float64")
    for tau in (tf.Variable(1.0, dtype="float64"), weight):

        def fn(tau: Any = tau) -> Any:
            from ntxent.tensorflow import nt_xent

            with tf.GradientTape() as tape:
                loss = nt_xent(*views, temperature=tau, implementation=implementation)
            return [loss, *tape.gradient(loss, [*views, tau])]

        step = in_mode(mode, partial(fn, tau))
        for factor, temperature in ((1, 0.5), (2, 0.25)):
            views[0].assign(factor * z1 + 1)
            tau.assign(temperature)
            assert_right(step(), (factor * z1 + 1, z2), temperature)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(tf: Any, implementation: str, dtype: str) -> None:
    """A float32 loss, and gradients in the dtype of the views."""
    views = [tf.cast(view, dtype) for view in views_of()]
    loss, *grads, _ = derivatives(implementation)(*views, tf.constant(0.2))
    assert loss.dtype == tf.float32
    assert {grad.dtype for grad in grads} == {tf.as_dtype(dtype)}
    wide = [tf.cast(view, tf.float64).numpy() for view in views]
    error = relative_error(loss.numpy(), reference.nt_xent(*wide, temperature=0.2))
    assert_within(error, tolerance("float32", "loss", 0.2), "loss of the rounded views")
