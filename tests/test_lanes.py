"""Few queries against many keys: bands of rows in lanes, so that every core finds one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ntxent import _grid, _workers

BACKENDS = [pytest.param(name, marks=pytest.mark.only(name)) for name in ("numpy", "torch")]


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("queries", [70, 200])
@pytest.mark.parametrize("temperature", [0.1, 0.01])
@pytest.mark.parametrize("cores", [1, 2, 8])
def test_a_queue(
    name: str,
    backend: Any,
    monkeypatch: pytest.MonkeyPatch,
    queries: int,
    temperature: float,
    cores: int,
) -> None:
    """Loss and gradients are those of the matrix, however many lanes there are."""
    del name
    monkeypatch.setattr(_workers, "CORES", cores)
    lanes = []
    rounds = _grid.rounds

    def watched(rows: int, columns: int, symmetric: bool, many: int = 1) -> Any:
        lanes.append(many)
        return rounds(rows, columns, symmetric, many)

    monkeypatch.setattr(_grid, "rounds", watched)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((size, 8)) for size in (queries, queries, 2100)]

    def found(implementation: str) -> Any:
        return backend.value_and_grad(
            lambda *x: backend.module.info_nce(
                *x, temperature=temperature, implementation=implementation
            ),
            [backend.from_numpy(x) for x in arrays],
        )

    loss, grads = found("tiled")
    if queries <= _workers.LEAST:  # one band, whatever the number of threads
        assert (max(lanes) > 1) == (cores > 1)
    expected, expected_grads = found("dense")
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    for grad, right in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(grad, right, rtol=1e-9, atol=1e-12)


def test_every_tile_once() -> None:
    """Each lane has the columns that are its own, and no tile is there twice."""
    for bands, lanes, columns in [(1, 1, 5), (1, 4, 9), (2, 3, 7), (3, 2, 6)]:
        tiles = list(_grid.rounds(bands * lanes, columns, False, lanes))
        assert all(row // bands == column % lanes for row, column in tiles)
        places = [(row % bands, column) for row, column in tiles]
        assert sorted(places) == [
            (band, column) for band in range(bands) for column in range(columns)
        ]
