"""The demo's encoder in JAX: functions of the kernels, a list of arrays."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from _digits import Array
from _digits_network import BODY, Moments, adam, no_moments

from ntxent.jax import nt_xent

Kernels = list[jax.Array]


class Encoder:
    """The kernels and what Adam remembers, replaced at every step."""

    def __init__(self, kernels: list[Array], temperature: float) -> None:
        self.kernels = [jnp.asarray(kernel) for kernel in kernels]
        self.moments = no_moments(self.kernels)
        self.temperature = temperature

    def step(self, views: Array, rate: float) -> float:
        """One step of Adam."""
        loss, self.kernels, self.moments = updated(
            self.kernels, self.moments, views, rate, self.temperature
        )
        return float(loss)

    def features(self, images: Array) -> Array:
        """What the probe sees."""
        return np.asarray(features(self.kernels, images))

    def projections(self, images: Array) -> Array:
        """What the loss compares."""
        return np.asarray(projections(self.kernels, images))


def features(kernels: Kernels, images: Array | jax.Array) -> jax.Array:
    """The body's output, a row for each image."""
    found = jnp.asarray(images)[..., None]
    for layer, kernel in zip(BODY, kernels[:-1], strict=True):
        strides = (layer.stride, layer.stride)
        form = ("NHWC", "HWIO", "NHWC")
        found = jax.lax.conv_general_dilated(found, kernel, strides, "SAME", dimension_numbers=form)
        found = jax.nn.relu(found)
    return found.reshape(len(found), -1)


def projections(kernels: Kernels, images: Array | jax.Array) -> jax.Array:
    """The head's output, a row for each image."""
    return features(kernels, images) @ kernels[-1]


@jax.jit
def updated(
    kernels: Kernels, moments: Moments, views: jax.Array, rate: float, temperature: float
) -> tuple[jax.Array, Kernels, Moments]:
    """The loss, and kernels and moments after a step; compiled once, as every batch is as large."""

    def loss_of(kernels: Kernels) -> jax.Array:
        z1, z2 = jnp.split(projections(kernels, views), 2)
        return nt_xent(z1, z2, temperature=temperature)

    loss, gradients = jax.value_and_grad(loss_of)(kernels)
    return loss, *adam(kernels, gradients, moments, rate)
