"""Gradients with an upstream other than 1, and of one input alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from _adapters import ADAPTERS
from _cases import Case, oracle
from _tolerances import assert_within, gradient_error, relative_error, tolerance
from ntxent import reference


@pytest.mark.parametrize("temperature", [0.005, 0.1])
@pytest.mark.parametrize("denominator", ["all", "negatives"])
@pytest.mark.parametrize("views", [2, 3])
def test_an_upstream_for_every_row(
    backend: Any, implementation: str, temperature: float, denominator: str, views: int
) -> None:
    """Of both signs, over many magnitudes."""
    inputs = oracle(Case("random", views, 9, 6, temperature), "float64").inputs
    rng = np.random.default_rng(1)
    weights = rng.standard_normal(9 * views) * 10.0 ** rng.integers(-12, 3, 9 * views)

    def fn(*x: Any) -> Any:
        rows = backend.module.nt_xent(
            *x,
            temperature=temperature,
            denominator=denominator,
            reduction="none",
            implementation=implementation,
        )
        return backend.total(rows, backend.from_numpy(weights))

    _, grads = backend.value_and_grad(fn, [backend.from_numpy(x) for x in inputs])
    expected, _ = reference.gradients(
        *inputs, temperature=temperature, denominator=denominator, upstream=weights
    )
    lengths = [np.hypot.reduce(x, axis=1, keepdims=True) for x in inputs]
    size = [np.array([0.0])]
    error = gradient_error(grads, expected, lengths, size, temperature)
    assert_within(error, tolerance("float64", "gradient", temperature), "gradient")


@pytest.mark.parametrize("upstream", [1e-25, 1e25])
def test_an_upstream_of_any_size(backend: Any, implementation: str, upstream: float) -> None:
    """float32: neither g exp(-lse) nor its partner may fall out of range where g alone fits."""
    case = Case("close", 2, 20, 16, 0.05)
    truth = oracle(case, "float32")
    _, grads = backend.value_and_grad(
        lambda *x: (
            backend.module.nt_xent(*x, temperature=0.05, implementation=implementation) * upstream
        ),
        [backend.from_numpy(x) for x in truth.inputs],
    )
    size = max(np.abs(g).max() for g in truth.gradients)
    for got, expected in zip(grads, truth.gradients, strict=True):
        error = np.abs(got.astype(np.float64) / upstream - expected).max() / size
        assert_within(error, tolerance("float32", "gradient", 0.05), "gradient")


def test_one_view_alone(backend: Any, implementation: str) -> None:
    """The other views are constants: the gradient is the one that all together would give."""
    truth = oracle(Case("random", 3, 9, 6, 0.1), "float64")
    for place in range(3):

        def fn(x: Any, place: int = place) -> Any:
            views = [backend.from_numpy(view) for view in truth.inputs]
            views[place] = x
            return backend.module.nt_xent(*views, temperature=0.1, implementation=implementation)

        _, (grad,) = backend.value_and_grad(fn, [backend.from_numpy(truth.inputs[place])])
        error = gradient_error(
            [grad], [truth.gradients[place]], [truth.lengths[place]], truth.rows, 0.1
        )
        assert_within(error, tolerance("float64", "gradient", 0.1), f"view {place + 1}")


def test_one_array_as_both_views(backend: Any, implementation: str) -> None:
    """f(z, z) has the sum of both gradients."""
    z = np.random.default_rng(0).standard_normal((9, 6))
    _, (grad,) = backend.value_and_grad(
        lambda x: backend.module.nt_xent(x, x, implementation=implementation),
        [backend.from_numpy(z)],
    )
    (first, second), _ = reference.gradients(z, z)
    np.testing.assert_allclose(grad, first + second, atol=1e-12)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.only(name)) for name in ("torch", "numpy")]
)
@pytest.mark.parametrize("images", [16, 64])
def test_the_gradient_by_a_temperature_keeps_its_digits(
    request: pytest.FixtureRequest, name: str, images: int
) -> None:
    """Of three close views, where what is summed cancels to a thousandth: relative to itself."""
    backend = ADAPTERS[name](request.config.getoption("--device"))
    rng = np.random.default_rng(0)
    base = rng.standard_normal((images, 64))
    views = [(base + 0.1 * rng.standard_normal(base.shape)).astype(np.float32) for _ in range(3)]

    def gradient(dtype: str) -> Any:
        given = [backend.from_numpy(x, dtype) for x in views]
        tau = backend.from_numpy(np.array(0.07), dtype)
        loss = lambda tau: backend.module.nt_xent(*given, temperature=tau)  # noqa: E731
        return backend.value_and_grad(loss, [tau])[1][0]

    error = relative_error(gradient("float32"), gradient("float64"))
    assert_within(error, 1e-5, "by the temperature")


@pytest.mark.only("torch")
@pytest.mark.parametrize(("reduction", "temperature"), [("none", 0.0085), ("sum", 0.01)])
def test_an_upstream_lifts_a_weight_that_float32_has_not(
    backend: Any, reduction: str, temperature: float
) -> None:
    """Views so close that weights are 1e-42, times 1e8; and no gradient shares another's memory.

    A scalar's upstream comes after the weights: at 0.01 they are still normal numbers.
    """
    torch, module = backend.torch, backend.module
    made = torch.Generator().manual_seed(0)
    base = torch.randn(16, 256, generator=made)
    views = [base + 1e-3 * torch.randn(16, 256, generator=made) for _ in range(2)]

    def gradients(dtype: Any, implementation: str) -> list[Any]:
        given = [x.to(dtype).requires_grad_() for x in views]
        loss = module.nt_xent(
            *given, temperature=temperature, reduction=reduction, implementation=implementation
        )
        return list(torch.autograd.grad(loss, given, torch.full_like(loss, 1e8)))

    found = gradients(torch.float32, "tiled")
    assert found[0].untyped_storage().data_ptr() != found[1].untyped_storage().data_ptr()
    expected = gradients(torch.float64, "dense")
    for got, exact in zip(found, expected, strict=True):
        error = relative_error(got.double().numpy(), exact.numpy(), exact.abs().max().item())
        assert_within(error, 1e-4, "lifted")
