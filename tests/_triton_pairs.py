"""Pairs of rows for Triton's kernels, whose sums and gradients float64 holds to their digits."""

from __future__ import annotations

from typing import Any

import numpy as np

from _tolerances import EPSILON, assert_within

FLOAT32 = 2.0**-23  # its epsilon


def rows_of(backend: Any, count: int, dim: int) -> Any:
    """The same on every device."""
    rows = backend.torch.randn(count, dim)
    return backend.torch.nn.functional.normalize(rows).to(backend.device)


def pairs_of(backend: Any, size: Any, temperature: float, ids: str) -> Any:
    """Queries, keys and ids; columns are asked for where there are two sides."""
    from ntxent.torch._pairs.tile import Pairs

    torch, (rows, columns, dim) = backend.torch, size
    queries = rows_of(backend, rows, dim)
    keys = None if columns is None else rows_of(backend, columns, dim)
    given: Any = (7, None)
    if ids == "arrays":
        given = tuple(
            torch.randint(0, 9, (count,)).to(backend.device)
            for count in (rows, rows if columns is None else columns)
        )
        given = given if keys is not None else (given[0], None)
    return Pairs(queries, keys, 1 / temperature, given, True, keys is not None)


def assert_right(torch: Any, pairs: Any, product: str, note_worst: Any) -> None:
    """Log-sum-exps to float32's digits of what the rounded rows give; gradients to the product's.

    The rounding of rows is not the kernels': products are summed in float32. In the gradient the
    weights are rounded as well, each on its own.
    """
    from ntxent._pairs.sides import Side
    from ntxent.torch._kernels import launch
    from ntxent.torch._pairs import one_tile

    low = getattr(torch, "float32" if product == "tf32" else product)
    torch.set_float32_matmul_precision("high" if product == "tf32" else "highest")
    rounded = [
        None if x is None else launch.factors(x, low)[:, : x.shape[1]].double()
        for x in (pairs.queries, pairs.keys)
    ]
    truth = pairs._replace(queries=rounded[0], keys=rounded[1])
    pairs = pairs._replace(product=low)
    found = launch.forward(pairs, keep=False)
    expected = one_tile.forward(truth, keep=True)
    for got, want in zip(found[:2], expected[:2], strict=True):
        assert_sums(torch, pairs, got, want, note_worst)
    upstream = [None if x is None else torch.randn(len(x.lse)).to(x.lse.device) for x in found[:2]]
    sides, true_sides = (
        [
            None if x is None else Side(g.to(x.lse.dtype), x.divisor)
            for g, x in zip(upstream, both[:2], strict=True)
        ]
        for both in (found, expected)
    )
    by_keys = pairs.keys is not None
    gradients = launch.backward(pairs, *sides, (), by_keys)
    truths = one_tile.backward(truth, *true_sides, expected[2], by_keys)
    for got, want in zip(gradients, truths, strict=True):
        assert_gradient(torch, pairs.scale, product, got, want, note_worst)


def assert_sums(torch: Any, pairs: Any, got: Any, want: Any, note_worst: Any) -> None:
    """Log-sum-exps of rows or of columns; of these there may be none."""
    if want is None:
        assert got is None
        return
    assert not got.lse.isnan().any()
    finite = want.lse.isfinite()
    assert torch.equal(got.lse[~finite], want.lse[~finite].float())
    error = torch.where(finite, got.lse - want.lse, 0.0).abs().max().item()
    # a score is a sum of d products over tau, a log-sum-exp of them log n
    bound = FLOAT32 * (4 * pairs.scale + 2 * np.log(pairs.others.shape[0]) + 1)
    assert_within(error, bound, "log-sum-exp")
    note_worst("kernels, log-sum-exp", "torch", error / bound)


def assert_gradient(
    torch: Any, scale: float, product: str, got: Any, want: Any, note_worst: Any
) -> None:
    """Of queries or of keys; of these there may be none."""
    if want is None:
        assert got is None
        return
    assert got.dtype == torch.float32
    error = ((got - want).abs().max() / want.abs().max().clamp(min=1e-6 * scale)).item()
    # the weights' rounding, by which TF32 has float16's ten bits
    bound = 8 * FLOAT32 * max(1.0, scale) + EPSILON.get(product.replace("tf32", "float16"), 0.0)
    assert_within(error, bound, "gradient")
    note_worst(f"kernels, gradient, {product}", "torch", error / bound)
