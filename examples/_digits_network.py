"""The network that every backend trains, as the kernels it starts from, and Adam for two of them.

Four convolutions and a linear projection head, which is thrown away after training. Each
convolution but the first makes one pixel of 2 x 2, until one is left: no pixel is read twice, so a
backward pass by hand is a few lines.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from _digits import Array


class Layer(NamedTuple):
    """A convolution followed by a ReLU, without bias."""

    side: int
    stride: int
    channels: int


BODY = Layer(3, 1, 32), Layer(2, 2, 64), Layer(2, 2, 64), Layer(2, 2, 256)
PROJECTED = 64


def initial_kernels(seed: int) -> list[Array]:
    """Height x width x in x out for each layer of the body, then in x out for the head.

    All backends start from them and see the same views: they differ in rounding alone.
    """
    before, shapes = 1, []
    for layer in BODY:
        shapes.append((layer.side, layer.side, before, layer.channels))
        before = layer.channels
    shapes.append((before, PROJECTED))
    rng = np.random.default_rng(seed)
    bounds = [np.prod(shape[:-1]) ** -0.5 for shape in shapes]
    return [
        rng.uniform(-bound, bound, shape).astype(np.float32)
        for bound, shape in zip(bounds, shapes, strict=True)
    ]


class Moments(NamedTuple):
    """What Adam remembers: how many steps, and running means of the gradients and their squares."""

    step: Any
    mean: list[Any]
    square: list[Any]


def no_moments(weights: list[Any]) -> Moments:
    """Before the first step."""
    zeros = [0 * weight for weight in weights]
    return Moments(0, zeros, zeros)


def adam(
    weights: list[Any], gradients: list[Any], moments: Moments, rate: Any
) -> tuple[list[Any], Moments]:
    """One step for NumPy's or JAX's arrays: eight lines, so that neither needs a package more."""
    step = moments.step + 1
    pairs = zip(moments.mean, gradients, strict=True)
    mean = [0.9 * old + 0.1 * new for old, new in pairs]
    pairs = zip(moments.square, gradients, strict=True)
    square = [0.999 * old + 0.001 * new**2 for old, new in pairs]
    rate, unbias = rate / (1 - 0.9**step), (1 - 0.999**step) ** -0.5
    moved = [
        weight - rate * m / (unbias * s**0.5 + 1e-8)
        for weight, m, s in zip(weights, mean, square, strict=True)
    ]
    return moved, Moments(step, mean, square)
