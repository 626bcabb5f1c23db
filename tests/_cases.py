"""The hostile grid: geometries, sizes and temperatures at which contrastive losses go wrong."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ntxent import reference

Array = np.ndarray[Any, Any]


class Case(NamedTuple):
    geometry: str
    views: int
    images: int
    dim: int
    temperature: float

    def __str__(self) -> str:
        return f"{self.geometry}-V{self.views}-N{self.images}-d{self.dim}-t{self.temperature}"


class Oracle(NamedTuple):
    """What `ntxent.reference` says of a case, in the rounding of its dtype."""

    inputs: list[Array]
    rows: Array
    loss: float
    gradients: list[Array]
    temperature_gradient: float
    lengths: list[Array]


GEOMETRIES = ("random", "close", "identical", "antipodal", "zero row", "norms")
TEMPERATURES = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 10.0)
SMALL = (
    (2, 1, 1),
    (2, 1, 5),
    (2, 2, 3),
    (2, 3, 1),
    (2, 5, 8),
    (2, 17, 129),
    (2, 3, 513),
    (3, 5, 8),
)
GRID = [
    Case(geometry, *size, temperature)
    for geometry, size, temperature in itertools.product(GEOMETRIES, SMALL, TEMPERATURES)
] + [
    Case(geometry, 2, 150, 32, temperature)
    for geometry, temperature in itertools.product(GEOMETRIES, (0.005, 0.05, 0.5))
]


def make_views(case: Case, seed: int = 0) -> list[Array]:
    """The views of a case in float64."""
    rng = np.random.default_rng([seed, case.views, case.images, case.dim])
    first = rng.standard_normal((case.images, case.dim))
    if case.geometry == "identical":
        return [np.tile(first[:1], (case.images, 1))] * case.views
    if case.geometry == "antipodal":
        return [first if view % 2 == 0 else -first for view in range(case.views)]
    noise = 0.01 if case.geometry == "close" else 1.0
    views = [first] + [
        first + noise * rng.standard_normal(first.shape) for _ in range(case.views - 1)
    ]
    if case.geometry == "zero row":
        views[0][case.images // 2] = 0
    if case.geometry == "norms":
        exponents = np.linspace(-20, 20, case.views * case.images).reshape(case.views, -1, 1)
        views = [view * 10**power for view, power in zip(views, exponents, strict=True)]
    return views


@cache
def oracle(case: Case, dtype: str, denominator: str = "all") -> Oracle:
    """The case in the rounding of a dtype, and the float64 truth for those inputs."""
    temperature = float(np.dtype(dtype).type(case.temperature))
    inputs = [view.astype(dtype) for view in make_views(case)]
    rows = reference.row_losses(*inputs, temperature=temperature, denominator=denominator)
    gradients, by_temperature = reference.gradients(
        *inputs, temperature=temperature, denominator=denominator
    )
    lengths = [np.array([[np.hypot.reduce(row)] for row in x.astype(np.float64)]) for x in inputs]
    loss = float(np.mean(rows))
    return Oracle(inputs, np.array(rows), loss, gradients, by_temperature, lengths)
