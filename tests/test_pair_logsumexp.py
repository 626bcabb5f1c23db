"""The hot operation itself, rectangular ones included: every implementation against plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from _hot import log_sum_exp
from _tolerances import assert_within, relative_error
from ntxent._pairs.sides import two_sides


def by_loops(
    q: Any, k: Any, scale: float, query_ids: Any, key_ids: Any, columns: bool, weights: Any
) -> tuple[Any, list[Any]]:
    """The log-sum-exps and the gradients of their weighted sum, one row (or column) at a time."""
    lse, dq, dk, dscale = [], np.zeros_like(q), np.zeros_like(k), 0.0
    lines = [(i, None) for i in range(len(q))] + [(None, j) for j in range(len(k)) if columns]
    for weight, (i, j) in zip(weights, lines, strict=True):
        pairs = [
            (a, b)
            for a in (range(len(q)) if i is None else [i])
            for b in (range(len(k)) if j is None else [j])
            if query_ids[a] != key_ids[b]
        ]
        scores = np.array([scale * (q[a] @ k[b]) for a, b in pairs])
        lse.append(np.logaddexp.reduce(scores) if pairs else -np.inf)
        for (a, b), score in zip(pairs, scores, strict=True):
            slope = weight * np.exp(score - lse[-1])
            dq[a] += slope * scale * k[b]
            dk[b] += slope * scale * q[a]
            dscale += slope * (q[a] @ k[b])
    return np.array(lse), [dq, dk, np.array(dscale)]


@pytest.mark.covering(("scale", "columns", "implementation"), ("ids", "scale"), compiled=True)
@pytest.mark.parametrize("scale", [2.0, 300.0])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("sizes", [(5, 5), (20, 37), (37, 20), (2, 9)], ids=str)
@pytest.mark.parametrize("ids", ["period", "arrays"])
def test_rectangles(
    backend: Any, implementation: str, scale: float, columns: bool, sizes: tuple[int, int], ids: str
) -> None:
    """Row and column log-sum-exps, and the gradients of queries, keys and scale."""
    rng = np.random.default_rng(0)
    q, k = (
        x / np.linalg.norm(x, axis=1, keepdims=True)
        for x in (rng.standard_normal((n, 6)) for n in sizes)
    )
    query_ids, key_ids = np.arange(sizes[0]) % 7, np.arange(sizes[1]) % 7
    if ids == "arrays":
        query_ids, key_ids = rng.integers(0, 9, sizes[0]), rng.integers(0, 9, sizes[1])
    given: Any = (7, 7)
    if ids == "arrays":
        given = backend.from_numpy(query_ids), backend.from_numpy(key_ids)
    weights = rng.standard_normal(sum(sizes) if columns else sizes[0])

    def lse(q: Any, k: Any, scale: Any) -> Any:
        return log_sum_exp(backend, q, k, scale, given, implementation, unit=True, columns=columns)

    def total(*inputs: Any) -> Any:
        return backend.total(lse(*inputs), backend.from_numpy(weights))

    inputs = [backend.from_numpy(x) for x in (q, k, np.array(scale))]
    with np.errstate(divide="ignore"):
        got = backend.value(lambda q, k: lse(q, k, scale), *inputs[:2])
    expected, gradients = by_loops(q, k, scale, query_ids, key_ids, columns, weights)
    assert_within(relative_error(got, expected, 1.0), 1e-14 * scale, "log-sum-exp")
    _, grads = backend.value_and_grad(total, inputs)
    for name, grad, truth in zip(("queries", "keys", "scale"), grads, gradients, strict=True):
        size = np.abs(truth).max()
        assert_within(relative_error(grad, truth, size), 1e-14 * max(scale, 100), name)


def test_rows_and_columns_of_one_side(backend: Any, implementation: str) -> None:
    """Without keys, and with columns: those of the queries against themselves, twice."""
    q = np.random.default_rng(0).standard_normal((20, 6))
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    weights = np.random.default_rng(1).standard_normal(40)
    ids = np.arange(20) % 7
    expected, gradients = by_loops(q, q, 2.0, ids, ids, True, weights)

    def total(rows: Any, scale: Any) -> Any:
        options = {"unit": True, "columns": True}
        found = log_sum_exp(backend, rows, None, scale, (7, None), implementation, **options)
        return backend.total(found, backend.from_numpy(weights))

    value, (grad, by_scale) = backend.value_and_grad(
        total, [backend.from_numpy(q), backend.from_numpy(np.array(2.0))]
    )
    assert_within(relative_error(value, expected @ weights, 1.0), 1e-12, "sum")
    truth = gradients[0] + gradients[1]
    assert_within(relative_error(grad, truth, np.abs(truth).max()), 1e-12, "rows")
    assert_within(relative_error(by_scale, gradients[2], 1.0), 1e-12, "scale")


def test_a_row_without_any_pair_is_minus_infinity(backend: Any, implementation: str) -> None:
    q = backend.from_numpy(np.eye(3))
    ids = backend.from_numpy(np.zeros(3, int))
    for unit in (True, False):
        with np.errstate(divide="ignore"):
            found = backend.value(
                lambda q, unit=unit: log_sum_exp(
                    backend, q, None, 2.0, (ids, None), implementation, unit=unit, columns=False
                ),
                q,
            )
        assert (found == -np.inf).all()


def test_a_period_on_one_side_alone_is_refused(backend: Any) -> None:
    """What every backend whose operation takes two sides of ids asks first."""
    q, ids = backend.from_numpy(np.eye(3)), backend.from_numpy(np.arange(3))
    for both in ((3, ids), (ids, 3), (3, 4)):
        with pytest.raises(ValueError, match="one period must serve both sides"):
            two_sides(q, q, *both, columns=False)


@pytest.mark.only("torch")
def test_ranges_of_ids_are_asked_for_where_tiles_may_hold_no_equal_pair(monkeypatch: Any) -> None:
    """Not of a lone tile of rows with themselves; of a queue, whose pairs are never compared."""
    import torch

    from ntxent.torch._pairs import excluded as exclusions

    asked, ranges = [], exclusions.id_ranges
    monkeypatch.setattr(exclusions, "id_ranges", lambda x: asked.append(1) or ranges(x))
    ids, others = torch.tensor([0, 0, 1]), torch.tensor([5, 6, 7])
    excluded = ids[:, None] == ids
    for keys, tile, times, where in (
        (None, 3, 0, excluded),
        (ids, 3, 0, excluded),
        (ids.clone(), 3, 2, excluded),
        (others, 3, 2, torch.zeros(3, 3, dtype=torch.bool)),
        (None, 2, 1, excluded[:2, :2]),
    ):
        asked.clear()
        scores = torch.zeros(len(where), len(where))
        exclusions.exclusion((ids, keys), tile, tile).fill_(scores, 0, 0)
        assert len(asked) == times
        assert torch.equal(scores == -torch.inf, where)
