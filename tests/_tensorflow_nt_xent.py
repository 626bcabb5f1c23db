"""TensorFlow's `nt_xent` and its gradients, eagerly and in graphs, held against the plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np

from _adapters import cut_into
from _tolerances import assert_within, gradient_error, relative_error, tolerance
from ntxent import reference

MODES: dict[str, Any] = {"eager": None, "graph": {}, "XLA": {"jit_compile": True}}
IMPLEMENTATIONS = ("dense", "tiled", "tiles of 4")


def chosen(name: str, monkeypatch: Any) -> str:
    """The `implementation` to ask for, with tiles that the batches here have several of."""
    from ntxent.tensorflow._pairs import tiled

    if name == "tiles of 4":
        cut_into(monkeypatch, tiled, 4)
        return "tiled"
    return name


def views_of(images: int = 5, dim: int = 3, dtype: str = "float64") -> list[Any]:
    rng = np.random.default_rng(images)
    return [rng.standard_normal((images, dim)).astype(dtype) for _ in range(2)]


def in_mode(mode: str, fn: Any, **options: Any) -> Any:
    import tensorflow as tf

    return fn if MODES[mode] is None else tf.function(fn, **MODES[mode], **options)


def derivatives(implementation: str, mode: str = "eager", **options: Any) -> Any:
    """A function (*views, temperature) -> loss and its gradient of each."""
    import tensorflow as tf

    from ntxent.tensorflow import nt_xent

    def fn(*inputs: Any) -> list[Any]:
        inputs = tuple(map(tf.convert_to_tensor, inputs))
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = nt_xent(*inputs[:-1], temperature=inputs[-1], implementation=implementation)
        return [loss, *tape.gradient(loss, inputs)]

    return in_mode(mode, fn, **options)


def assert_right(found: Any, views: Any, temperature: float) -> None:
    """Loss and gradients, of the views and of the temperature, are those of the loops."""
    loss, *grads, by_temperature = (np.asarray(x) for x in found)
    dtype, rows = loss.dtype.name, reference.row_losses(*views, temperature=temperature)
    bound = tolerance(dtype, "gradient", temperature)
    error = relative_error(loss, reference.nt_xent(*views, temperature=temperature))
    assert_within(error, tolerance(dtype, "loss", temperature), "loss")
    truth, slope = reference.gradients(*views, temperature=temperature)
    lengths = [np.linalg.norm(view, axis=1, keepdims=True) for view in views]
    error = gradient_error(grads, truth, lengths, rows, temperature, dtype)
    assert_within(error, bound, "gradient")
    terms = -np.expm1(-np.mean(rows)) / temperature**2
    assert_within(relative_error(by_temperature, slope, terms), bound, "temperature's gradient")
