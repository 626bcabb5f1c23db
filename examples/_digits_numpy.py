"""The demo's encoder in NumPy: the loss brings its gradients, the encoder's are written out here.

Every convolution is a product of two matrices, with a row for each place where its kernel stands.
"""

from __future__ import annotations

import numpy as np
from _digits import Array
from _digits_network import adam, no_moments
from numpy.lib.stride_tricks import sliding_window_view

from ntxent.numpy import nt_xent, value_and_grad

MERGED_SIDES = 8, 4, 2  # of the pictures that the second, third and fourth convolution read


class Encoder:
    """The weights and what Adam remembers, replaced at every step."""

    def __init__(self, kernels: list[Array], temperature: float) -> None:
        self.weights = [kernel.reshape(-1, kernel.shape[-1]) for kernel in kernels]
        self.moments = no_moments(self.weights)
        self.temperature = temperature

    def step(self, views: Array, rate: float) -> float:
        """Forward, backward, Adam."""
        *body, head = self.weights
        *inputs, features = forward(body, views)
        z1, z2 = np.split(features @ head, 2)
        loss, gradients = value_and_grad(nt_xent)(z1, z2, temperature=self.temperature)
        rows = np.concatenate(gradients)
        found = [*backward(body, inputs, rows @ head.T * (features > 0)), features.T @ rows]
        self.weights, self.moments = adam(self.weights, found, self.moments, rate)
        return float(loss)

    def features(self, images: Array) -> Array:
        """What the probe sees."""
        return forward(self.weights[:-1], images)[-1]

    def projections(self, images: Array) -> Array:
        """What the loss compares."""
        return self.features(images) @ self.weights[-1]


def forward(body: list[Array], images: Array) -> list[Array]:
    """What each convolution multiplies by its weights, and the last one's output."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    inputs = [sliding_window_view(padded, (3, 3), (1, 2)).reshape(-1, 9)]
    for side, weights in zip(MERGED_SIDES, body[:-1], strict=True):
        inputs.append(merged(np.maximum(inputs[-1] @ weights, 0), side))
    return [*inputs, np.maximum(inputs[-1] @ body[-1], 0)]


def backward(body: list[Array], inputs: list[Array], gradient: Array) -> list[Array]:
    """The gradient of every convolution's weights, from that of the last one before its ReLU."""
    found = [inputs[-1].T @ gradient]
    for layer, side in zip((3, 2, 1), MERGED_SIDES[::-1], strict=True):
        gradient = parted(gradient @ body[layer].T * (inputs[layer] > 0), side)
        found.append(inputs[layer - 1].T @ gradient)
    return found[::-1]


def merged(pixels: Array, side: int) -> Array:
    """A row for each 2 x 2 pixels, from rows that are the pixels of pictures of this side."""
    half, channels = side // 2, pixels.shape[1]
    blocks = pixels.reshape(-1, half, 2, half, 2, channels).swapaxes(2, 3)
    return blocks.reshape(-1, 4 * channels)


def parted(blocks: Array, side: int) -> Array:
    """What `merged` was given."""
    half, channels = side // 2, blocks.shape[1] // 4
    pixels = blocks.reshape(-1, half, half, 2, 2, channels).swapaxes(2, 3)
    return pixels.reshape(-1, channels)
