"""What the machine can do: products of tiles and exponentials, and the time they need at least.

A loss without the matrix multiplies n^2 d numbers forward (half of S, two operations each), the
same again backward, and 2 n^2 d for both products with W: 4 n^2 d operations and n^2 exponentials
with n = 2N rows on one side; of two sides each half of that.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks.cases import Setting

TILE = 512


class Ceilings:
    """Rates on tiles that a cache holds, by the library that is fastest here."""

    def __init__(self, setting: Setting) -> None:
        random = np.random.default_rng(0)
        rows = random.standard_normal((TILE, setting.columns)).astype(np.float32)
        try:
            import torch

            torch.set_num_threads(setting.threads)
            dtype = getattr(torch, setting.dtype)
            self.rows: Any = torch.from_numpy(rows).to(dtype)
            self.tile: Any = torch.zeros(TILE, TILE, dtype=dtype)
            self.exponentials, self.product = torch.exp, torch.matmul
        except ImportError:
            self.rows = rows.astype(setting.dtype)
            self.tile = np.zeros((TILE, TILE), setting.dtype)
            self.exponentials, self.product = np.exp, np.matmul

    def burst(self, seconds: float, warm: bool) -> dict[str, float]:
        """Median seconds of a tile of scores, of a tile's product with rows, of exponentials."""
        del warm  # a median needs no warm-up
        scores, products, exponentials = [], [], []
        ended = time.perf_counter() + seconds
        gradient = self.product(self.tile, self.rows)
        while time.perf_counter() < ended or len(scores) < 3:
            marks = [time.perf_counter()]
            self.product(self.rows, self.rows.T, out=self.tile)
            marks.append(time.perf_counter())
            self.product(self.tile, self.rows, out=gradient)
            marks.append(time.perf_counter())
            self.tile *= 0  # exponentials of large numbers take another path
            begun = time.perf_counter()
            self.exponentials(self.tile, out=self.tile)
            exponentials.append(time.perf_counter() - begun)
            scores.append(marks[1] - marks[0])
            products.append(marks[2] - marks[1])
        found = scores, products, exponentials
        names = "scores_s", "products_s", "exponentials_s"
        return {name: float(np.median(x)) for name, x in zip(names, found, strict=True)}


def floor_ms(setting: Setting, rates: dict[str, float]) -> float:
    """The time of the products and exponentials of a step alone, from the tiles' times."""
    tiles = (2 * setting.images / TILE) ** 2 / 2
    if setting.loss in ("clip", "info_nce"):  # a quarter of the matrix instead of its half
        tiles /= 2
    forward = rates["scores_s"] + rates["exponentials_s"]
    backward = forward + 2 * rates["products_s"] if setting.backward else 0.0
    return 1e3 * tiles * (forward + backward)
