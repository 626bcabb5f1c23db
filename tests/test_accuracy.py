"""Section "What correct means": every implementation against the float64 loops of `reference`."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from _adapters import cut_into
from _cases import GEOMETRIES, GRID, Case, make_views, oracle
from _tolerances import (
    EPSILON,
    HALF_LOSS,
    arithmetic,
    assert_within,
    gradient_error,
    relative_error,
    tolerance,
)
from ntxent import reference
from ntxent._pairs import headroom


def loss_and_gradients(
    backend: Any, inputs: Any, dtype: str, temperature: float, key: str = "", **kwargs: Any
) -> tuple[Any, list[Any], Any]:
    """The mean loss, the gradients of the views and that of the temperature."""

    def fn(*arrays: Any) -> Any:
        return backend.module.nt_xent(*arrays[:-1], temperature=arrays[-1], **kwargs)

    arrays = [backend.from_numpy(x, dtype) for x in (*inputs, np.asarray(temperature))]
    value, grads = backend.value_and_grad(fn, arrays, key=(key, *kwargs.items()))
    return value, grads[:-1], grads[-1]


@pytest.mark.covering(("geometry", "temperature", "implementation"))
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", GRID, ids=str)
def test_the_hostile_grid(
    backend: Any, implementation: str, dtype: str, case: Case, note_worst: Any
) -> None:
    """Loss, row losses, gradients and the temperature's gradient are within the table."""
    truth, table = oracle(case, dtype), arithmetic(backend, dtype, implementation)
    given = backend, truth.inputs, dtype, case.temperature, "hostile grid"
    loss, grads, by_temperature = loss_and_gradients(*given, implementation=implementation)
    rows = backend.value(
        backend.module.nt_xent,
        *(backend.from_numpy(x, dtype) for x in truth.inputs),
        temperature=case.temperature,
        reduction="none",
        implementation=implementation,
    )
    gradient_bound = tolerance(table, "gradient", case.temperature)
    errors = {
        "loss": (relative_error(loss, truth.loss), tolerance(table, "loss", case.temperature)),
        "row": (relative_error(rows, truth.rows), tolerance(table, "row", case.temperature)),
        "gradient": (
            gradient_error(
                grads, truth.gradients, truth.lengths, truth.rows, case.temperature, dtype
            ),
            gradient_bound,
        ),
        "temperature": (
            relative_error(
                by_temperature,
                truth.temperature_gradient,
                max(-np.expm1(-truth.rows).mean(), np.finfo(dtype).tiny / np.finfo(dtype).eps)
                / case.temperature**2,
            ),
            gradient_bound,
        ),
    }
    assert loss.dtype == np.dtype(dtype)
    assert not any(
        g[np.broadcast_to(n == 0, g.shape)].any() for g, n in zip(grads, truth.lengths, strict=True)
    )
    for what, (error, bound) in errors.items():
        assert_within(error, bound, f"{what} of {case} in {dtype}")
        note_worst(f"hostile grid, {what}", backend.name, error / bound)


@pytest.mark.covering(("denominator", "temperature", "implementation"))
@pytest.mark.parametrize("denominator", ["one_positive", "negatives"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("temperature", [0.005, 0.05, 0.5])
@pytest.mark.parametrize("views", [2, 3, 4])
def test_the_other_denominators(
    backend: Any, implementation: str, dtype: str, denominator: str, temperature: float, views: int
) -> None:
    """As the grid, for the two denominators that it leaves out; "negatives" may be negative."""
    case = Case("random", views, 6, 8, temperature)
    truth = oracle(case, dtype, denominator)
    loss, grads, by_temperature = loss_and_gradients(
        backend,
        truth.inputs,
        dtype,
        temperature,
        implementation=implementation,
        denominator=denominator,
    )
    scale = np.abs(truth.rows).mean()
    what = f"{denominator}, {case}"
    assert_within(
        relative_error(loss, truth.loss, scale), tolerance(dtype, "loss", temperature), what
    )
    error = gradient_error(grads, truth.gradients, truth.lengths, truth.rows, temperature, dtype)
    assert_within(error, tolerance(dtype, "gradient", temperature), what)
    error = relative_error(by_temperature, truth.temperature_gradient, scale / temperature)
    assert_within(error, tolerance(dtype, "gradient", temperature), what)


# The smallest numbers of bfloat16 are those of float32.
RANGE = {"float16": "float16", "bfloat16": "float32"}
HALF = [
    (dtype, Case(geometry, *size, temperature))
    for dtype, geometry, size, temperature in itertools.product(
        ("float16", "bfloat16"),
        GEOMETRIES,
        ((2, 1, 5), (2, 5, 8), (2, 17, 129), (3, 5, 8)),
        (0.005, 0.05, 0.5, 10.0),
    )
    if (dtype, geometry) != ("float16", "norms")  # 1e20 is infinite in float16
] + [(dtype, Case("random", 2, 150, 32, 0.05)) for dtype in ("float16", "bfloat16")]


@pytest.mark.covering
@pytest.mark.parametrize(("dtype", "case"), HALF, ids=str)
def test_half_precision_is_no_worse_than_dense(
    backend: Any, dtype: str, case: Case, monkeypatch: Any, note_worst: Any
) -> None:
    """The loss is float32; the tiled form is within twice the dense form's error.

    Both as one tile and in ragged tiles, against the truth for the rounded inputs.
    """
    if dtype not in backend.dtypes:
        pytest.skip(f"{backend.name} has no {dtype}")
    rounded = [
        backend.to_numpy(backend.from_numpy(x, dtype)).astype(np.float64) for x in make_views(case)
    ]
    rows = np.array(reference.row_losses(*rounded, temperature=case.temperature))
    expected, _ = reference.gradients(*rounded, temperature=case.temperature)
    lengths = [np.array([[np.hypot.reduce(row)] for row in x]) for x in rounded]

    def errors(implementation: str) -> tuple[float, float]:
        def fn(*arrays: Any) -> Any:
            tau = arrays[-1]
            return backend.module.nt_xent(
                *arrays[:-1], temperature=tau, implementation=implementation
            )

        arrays = [backend.from_numpy(x, dtype) for x in rounded]
        arrays.append(backend.from_numpy(np.array(case.temperature), "float32"))
        loss, (*grads, _) = backend.value_and_grad(fn, arrays, key=("half", implementation))
        assert loss.dtype == np.float32
        return (
            relative_error(loss, rows.mean()),
            gradient_error(grads, expected, lengths, rows, case.temperature, RANGE[dtype]),
        )

    dense_loss, dense_gradient = errors("dense")
    for tile in (backend.tiled.TILE, 8):
        cut_into(monkeypatch, backend.tiled, tile)
        loss_error, gradient_error_ = errors("tiled")
        for what, error, bound in (
            ("loss", loss_error, 2 * dense_loss + HALF_LOSS),
            ("gradient", gradient_error_, 2 * dense_gradient + EPSILON[dtype]),
        ):
            assert_within(error, bound, f"{what} of {case} in {dtype}, tiles of {tile}")
            note_worst(f"half precision, {what}", backend.name, error / bound)


def test_a_loss_of_1e_minus_27_keeps_its_digits(backend: Any, implementation: str) -> None:
    """Close views at tau = 0.01, where cross-entropy returns 0 with a gradient 90 % off."""
    rng = np.random.default_rng(0)
    first = rng.standard_normal((64, 128))
    inputs = [
        x.astype(np.float32) for x in (first, first + 0.01 * rng.standard_normal(first.shape))
    ]
    temperature = float(np.float32(0.01))
    rows = np.array(reference.row_losses(*inputs, temperature=temperature))
    expected, _ = reference.gradients(*inputs, temperature=temperature)
    loss, grads, _ = loss_and_gradients(
        backend, inputs, "float32", temperature, implementation=implementation
    )
    assert 0 < rows.mean() < 1e-24
    assert_within(relative_error(loss, rows.mean()), tolerance("float32", "loss", 0.01), "loss")
    size = max(np.abs(g).max() for g in expected)
    for got, truth in zip(grads, expected, strict=True):
        assert_within(
            np.abs(got - truth).max() / size, tolerance("float32", "gradient", 0.01), "gradient"
        )


def test_identical_rows_give_log_2n_minus_1(backend: Any, implementation: str) -> None:
    for images in (2, 5, 40):
        z = backend.from_numpy(np.ones((images, 4)), "float64")
        loss = backend.value(
            backend.module.nt_xent, z, z, temperature=0.5, implementation=implementation
        )
        assert_within(relative_error(loss, np.log(2 * images - 1)), 4e-16, f"N = {images}")


def test_antipodal_positives_at_a_small_temperature(backend: Any, implementation: str) -> None:
    """log(6) + 200: where exp underflows in the peers, and their gradient with it."""
    z = np.eye(4, dtype=np.float32) + np.float32(1e-3)
    loss, grads, _ = loss_and_gradients(
        backend, [z, -z], "float32", 0.005, implementation=implementation
    )
    assert round(float(loss), 0) == 202
    assert np.abs(grads[0]).max() > 1e-3
    exact = backend.value(
        backend.module.nt_xent,
        backend.from_numpy(np.eye(4), "float32"),
        backend.from_numpy(-np.eye(4), "float32"),
        temperature=0.005,
        implementation=implementation,
    )
    assert_within(
        relative_error(exact, 200 + np.log(6)), tolerance("float32", "loss", 0.005), "loss"
    )


@pytest.mark.parametrize("upstream", [1e-25, 1e8])
def test_an_upstream_at_the_edge_of_the_range(backend: Any, upstream: float) -> None:
    """A scaled loss has its gradient scaled: a row opposite to all others, where tau just fits."""
    first, second = np.eye(2, 5, dtype=np.float32), -np.ones((2, 1)) @ np.eye(1, 5)
    first[1] = -first[0] + np.float32(1e-3) * first[1]
    temperature = 1 / (headroom.ROOM[4] - np.log(4) - 0.01)

    def gradients(factor: float) -> Any:
        def fn(*views: Any) -> Any:
            rows = backend.module.nt_xent(*views, temperature=temperature, reduction="none")
            return backend.total(rows, backend.from_numpy(np.full(4, factor), "float32"))

        return backend.value_and_grad(
            fn, [backend.from_numpy(x, "float32") for x in (first, second)]
        )[1]

    for got, expected in zip(gradients(upstream), gradients(1.0), strict=True):
        assert np.isfinite(got).all()
        # as in the table: relative to the terms, which cancel where rows are opposite
        error = np.abs(got / np.float64(upstream) - expected).max() * temperature
        assert_within(error, tolerance("float32", "gradient", temperature), "gradient")
