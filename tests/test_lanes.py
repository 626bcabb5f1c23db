"""Few queries against many keys: bands of rows in lanes, so that every worker finds one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ntxent._pairs import places, sharing

BACKENDS = [pytest.param(name, marks=pytest.mark.only(name)) for name in ("numpy", "torch")]


def ask(monkeypatch: pytest.MonkeyPatch, name: str, workers: int) -> None:
    """From here on there are so many workers."""
    if name == "torch":
        from ntxent.torch._pairs import tiled

        monkeypatch.setattr(tiled, "most_workers", lambda rows: workers)
    else:
        from ntxent.numpy._pairs.threads import BLAS

        monkeypatch.setattr(BLAS, "threads", lambda: workers)


def arrays_of(queries: int, dtype: str = "float64") -> list[Any]:
    """A query, a key and a queue."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal((size, 8)).astype(dtype) for size in (queries, queries, 2100)]


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("queries", [70, 200])
@pytest.mark.parametrize("temperature", [0.1, 0.01])
@pytest.mark.parametrize("workers", [1, 2, 8])
def test_a_queue(
    name: str,
    backend: Any,
    monkeypatch: pytest.MonkeyPatch,
    queries: int,
    temperature: float,
    workers: int,
) -> None:
    """Loss and gradients are those of the matrix, however many lanes there are."""
    ask(monkeypatch, name, workers)
    lanes: set[int] = set()
    rounds = places.rounds

    def watched(rows: int, columns: int, symmetric: bool, many: int = 1) -> Any:
        lanes.add(many)
        return rounds(rows, columns, symmetric, many)

    monkeypatch.setattr(places, "rounds", watched)

    def found(implementation: str) -> Any:
        return backend.value_and_grad(
            lambda *x: backend.module.info_nce(
                *x, temperature=temperature, implementation=implementation
            ),
            [backend.from_numpy(x) for x in arrays_of(queries)],
        )

    loss, grads = found("tiled")
    bands = 1 if queries <= sharing.LEAST or workers == 1 else 2
    assert lanes == {-(-workers // bands)}
    expected, expected_grads = found("dense")
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    for grad, right in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(grad, right, rtol=1e-9, atol=1e-12)


@pytest.mark.only("torch")
@pytest.mark.parametrize(("first", "then"), [(2, 8), (8, 2), (1, 4)])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_other_workers_backward(
    monkeypatch: pytest.MonkeyPatch, first: int, then: int, dtype: str
) -> None:
    """Tiles are kept by their place, which another number of lanes doesn't change."""
    import torch

    from ntxent.torch import info_nce

    def gradients(workers: int) -> list[torch.Tensor]:
        ask(monkeypatch, "torch", first)
        rows = [torch.from_numpy(x).to(getattr(torch, dtype)) for x in arrays_of(200)]
        rows = [x.requires_grad_() for x in rows]
        losses = info_nce(*rows, reduction="none")
        ask(monkeypatch, "torch", workers)
        return list(torch.autograd.grad(losses.sum(), rows))

    for grad, right in zip(gradients(then), gradients(first), strict=True):
        torch.testing.assert_close(grad, right)


def test_every_tile_once() -> None:
    """Each lane has the columns that are its own, and no tile is there twice."""
    for bands, lanes, columns in [(1, 1, 5), (1, 4, 9), (2, 3, 7), (3, 2, 6), (5, 2, 16)]:
        tiles = list(places.rounds(bands * lanes, columns, False, lanes))
        assert all(row // bands == column % lanes for row, column in tiles)
        found = [(row % bands, column) for row, column in tiles]
        everywhere = [(band, column) for band in range(bands) for column in range(columns)]
        assert sorted(found) == everywhere
