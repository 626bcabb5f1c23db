"""What the machine can do with a library: tiles multiplied, exponentials, and what they take.

A loss without the matrix multiplies n^2 d numbers forward (half of S, two operations each), the
same again backward, and 2 n^2 d for both products with W: 4 n^2 d operations and n^2 exponentials
with n = 2N rows on one side; of two sides each half of that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cases import Setting

TILE = 512
Work = tuple[Callable[[], Any], ...]  # a tile of scores, its product with rows, its exponentials


def torch_work(rows: np.ndarray, tile: np.ndarray, setting: Setting) -> Work:
    """In memory that is there."""
    import torch

    torch.set_num_threads(setting.threads)
    dtype = torch.float64 if setting.dtype == "float64" else torch.float32  # as sums are held
    z, e = torch.from_numpy(rows).to(dtype), torch.from_numpy(tile).to(dtype)
    scores, product, powers = torch.empty_like(e), torch.empty_like(z), torch.empty_like(e)
    return (
        lambda: torch.mm(z, z.T, out=scores),
        lambda: torch.mm(e, z, out=product),
        lambda: torch.exp2(e, out=powers),  # a quarter of the time of exp
    )


def numpy_work(rows: np.ndarray, tile: np.ndarray, setting: Setting) -> Work:
    """In memory that is there, too."""
    z, e = rows.astype(setting.dtype), tile.astype(setting.dtype)
    scores, product, powers = np.empty_like(e), np.empty_like(z), np.empty_like(e)
    turned = np.ascontiguousarray(z.T)  # z @ z.T is another routine, and slower
    return (
        lambda: np.matmul(z, turned, out=scores),
        lambda: np.matmul(e, z, out=product),
        lambda: np.exp(e, out=powers),
    )


def jax_work(rows: np.ndarray, tile: np.ndarray, setting: Setting) -> Work:
    """Compiled."""
    import jax
    import jax.numpy as jnp

    z, e = jnp.asarray(rows, setting.dtype), jnp.asarray(tile, setting.dtype)
    scores, product, powers = jax.jit(lambda z: z @ z.T), jax.jit(jnp.matmul), jax.jit(jnp.exp)
    return (
        lambda: scores(z).block_until_ready(),
        lambda: product(e, z).block_until_ready(),
        lambda: powers(e).block_until_ready(),
    )


def tensorflow_work(rows: np.ndarray, tile: np.ndarray, setting: Setting) -> Work:
    """Eager operations are waited for."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(setting.threads)
    z, e = tf.constant(rows, setting.dtype), tf.constant(tile, setting.dtype)
    return (
        lambda: tf.matmul(z, z, transpose_b=True),
        lambda: tf.matmul(e, z),
        lambda: tf.exp(e),
    )


WORK = {"torch": torch_work, "numpy": numpy_work, "jax": jax_work, "tensorflow": tensorflow_work}


class Ceilings:
    """Rates on tiles that a cache holds, by the setting's library."""

    def __init__(self, setting: Setting) -> None:
        random = np.random.default_rng(0)
        rows = random.standard_normal((TILE, setting.columns)).astype(np.float32)
        tile = random.uniform(-1, 1, (TILE, TILE)).astype(np.float32)
        self.work = WORK[setting.library](rows, tile, setting)
        self.burst(0.0, warm=True)  # what is loaded and compiled once

    def burst(self, seconds: float, warm: bool) -> dict[str, float]:  # noqa: ARG002 as a Worker's
        """Median seconds of a tile of scores, of a tile's product with rows, of exponentials."""
        times: tuple[list[float], ...] = ([], [], [])
        ended = time.perf_counter() + seconds
        while len(times[0]) < 3 or time.perf_counter() < ended:
            for work, found in zip(self.work, times, strict=True):
                begun = time.perf_counter()
                work()
                found.append(time.perf_counter() - begun)
        names = "scores_s", "products_s", "exponentials_s"
        return {name: float(np.median(x)) for name, x in zip(names, times, strict=True)}


def floor_ms(setting: Setting, rates: dict[str, float]) -> float:
    """The time of the products and exponentials of a step alone, from the tiles' times."""
    tiles = (2 * setting.images / TILE) ** 2 / 2
    if setting.loss in ("clip", "info_nce"):  # a quarter of the matrix instead of its half
        tiles /= 2
    forward = rates["scores_s"] + rates["exponentials_s"]
    backward = forward + 2 * rates["products_s"] if setting.backward else 0.0
    return 1e3 * tiles * (forward + backward)
