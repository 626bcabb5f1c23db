"""A hot operation with its closed-form derivative, and under that the matrix form's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

Tensor = Any

NO_FORWARD_MODE = (
    "the tiled form has no forward mode, which tf.autodiff.ForwardAccumulator asks for. "
    'Pass implementation="dense", or take the gradient with a tf.GradientTape.'
)


def closed_form(
    forward: Callable[..., tuple[Tensor, Callable[[Tensor], Sequence[Tensor]]]],
    dense: Callable[..., Tensor],
    inputs: Sequence[Tensor],
) -> Tensor:
    """The value of `forward(*inputs)`, which returns it with its gradient, a function of upstream.

    `dense(*inputs)` is the same value, made of operations that TensorFlow differentiates: the
    second derivative is that of its gradient.

    Tapes also watch inside a custom gradient, and would have the loops keep every tile for a
    derivative that is never asked for: `stop_gradient` hides the tiles from them.
    """

    @tf.custom_gradient
    def value(*inputs: Tensor) -> Any:
        found, gradient = forward(*map(tf.stop_gradient, inputs))

        @tf.custom_gradient
        def first(upstream: Tensor, *inputs: Tensor) -> Any:
            def second(*cotangents: Tensor) -> Any:
                return differentiated(dense, (upstream, *inputs), cotangents)

            return gradient(tf.stop_gradient(upstream)), second

        return found, lambda upstream: first(upstream, *inputs)

    return value(*inputs)


def differentiated(dense: Callable[..., Tensor], inputs: Any, cotangents: Any) -> Any:
    """The derivative of the gradient of `dense`; recorded, so that it has further ones too."""
    with tf.GradientTape() as outer:
        outer.watch(inputs)
        upstream, *given = inputs
        with tf.GradientTape() as inner:
            inner.watch(given)
            found = dense(*given)
        first = inner.gradient(found, given, upstream)
        if any(x is None for x in first):  # an accumulator stops all tapes
            raise NotImplementedError(NO_FORWARD_MODE)
    return outer.gradient(first, inputs, list(cotangents))
