"""Small inputs of `sup_con` and `info_nce`, for what each framework's users expect of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from _tolerances import assert_within, relative_error

LABELS = np.array([3, 3, 5, 5, 5, 2**24, 2**24 + 1, 8])


def rows(count: int = 8, arrays: int = 1, seed: int = 0) -> list[Any]:
    """So many arrays, of rows of five numbers."""
    return list(np.random.default_rng(seed).standard_normal((arrays, count, 5)))


def assert_near(got: Any, expected: Any, bound: float, what: str) -> None:
    """As NumPy arrays, relative to the largest entry."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert_within(relative_error(got, expected, np.abs(expected).max()), bound, what)
