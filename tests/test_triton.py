"""Triton's kernels, on a GPU or in Triton's interpreter: against the float64 closed form and loops."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from _cases import GRID, Case
from _family import INFO_NCE, SUP_CON, info_nce_truth, sup_con_truth
from _tolerances import EPSILON, assert_within
from test_accuracy import test_the_hostile_grid as hostile_grid
from test_family import assert_table

pytestmark = [pytest.mark.only("torch"), pytest.mark.kernels]

# Rows and columns, elements of a row: one block and many, ragged against both, rows in parts.
SIZES = [(1, 2, 1), (3, 70, 5), (64, 64, 64), (65, 33, 129), (130, 40, 300), (40, 20, 1024)]
SIZES += [(20, None, 16), (65, None, 100), (150, None, 513)]
TEMPERATURES = (0.005, 0.1, 1.0)
PRODUCTS = ("float32", "bfloat16", "float16")


@pytest.fixture(autouse=True)
def interpreter() -> Iterator[None]:
    """It computes with NumPy, which would warn of log2(0), a row's without any pair."""
    with np.errstate(divide="ignore"):
        yield


@pytest.fixture
def torch(backend: Any) -> Any:
    assert backend.name == "torch"
    backend.torch.manual_seed(0)
    return backend.torch


def rows_of(backend: Any, count: int, dim: int) -> Any:
    rows = backend.torch.randn(count, dim, device=backend.device)
    return backend.torch.nn.functional.normalize(rows)


def pairs_of(backend: Any, size: Any, temperature: float, ids: str) -> Any:
    """Queries, keys and ids; columns are asked for where there are two sides."""
    from ntxent.torch._tile import Pairs

    torch, (rows, columns, dim) = backend.torch, size
    queries = rows_of(backend, rows, dim)
    keys = None if columns is None else rows_of(backend, columns, dim)
    given: Any = (7, None)
    if ids == "arrays":
        given = tuple(
            torch.randint(0, 9, (count,), device=backend.device)
            for count in (rows, rows if columns is None else columns)
        )
        given = given if keys is not None else (given[0], None)
    return Pairs(queries, keys, 1 / temperature, given, True, keys is not None)


@pytest.mark.parametrize("ids", ["period", "arrays"])
@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_both_kernels(
    backend: Any, torch: Any, size: Any, temperature: float, product: str, ids: str, note_worst: Any
) -> None:
    """Log-sum-exps to float32's digits of what the rounded rows give; gradients to the product's.

    The rounding of rows is not the kernels': products are summed in float32. In the gradient the
    weights are rounded as well, each on its own.
    """
    from ntxent._pairs import Side
    from ntxent.torch import _matrix, _triton

    pairs = pairs_of(backend, size, temperature, ids)
    low = getattr(torch, product)
    rounded = [None if x is None else x.to(low).double() for x in (pairs.queries, pairs.keys)]
    truth = pairs._replace(queries=rounded[0], keys=rounded[1])
    found = _triton.forward(pairs._replace(product=low), keep=False)
    expected = _matrix.forward(truth, keep=True)
    epsilon = 2.0**-23
    for got, want in zip(found[:2], expected[:2], strict=True):
        if want is None:
            assert got is None
            continue
        assert torch.equal(got.lse.isinf(), want.lse.isinf())
        error = (got.lse - want.lse).nan_to_num(0.0).abs().max().item()
        # a score is a sum of d products over tau, a log-sum-exp of them log n
        bound = epsilon * (4 / temperature + 2 * np.log(pairs.others.shape[0]) + 1)
        assert_within(error, bound, "log-sum-exp")
        note_worst("kernels, log-sum-exp", "torch", error / bound)
    upstream = [None if x is None else torch.randn_like(x.lse) for x in found[:2]]
    sides, true_sides = (
        [
            None if x is None else Side(g.to(x.lse.dtype), x.divisor)
            for g, x in zip(upstream, both[:2], strict=True)
        ]
        for both in (found, expected)
    )
    by_keys = pairs.keys is not None
    got = _triton.backward(pairs._replace(product=low), *sides, (), by_keys)
    want = _matrix.backward(truth, *true_sides, expected[2], by_keys)
    for a, b in zip(got, want, strict=True):
        if b is None:
            assert a is None
            continue
        assert a.dtype == torch.float32
        error = ((a - b).abs().max() / b.abs().max().clamp(min=1e-6 / temperature)).item()
        bound = 8 * epsilon * max(1.0, 1 / temperature) + EPSILON.get(product, 0.0)
        assert_within(error, bound, "gradient")
        note_worst(f"kernels, gradient, {product}", "torch", error / bound)
