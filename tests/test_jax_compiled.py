"""What JAX's users expect of `jit`: what compiles again, what may be traced, errors, export."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from _jax_cases import jit
from _jax_nt_xent import ALL, IMPLEMENTATIONS, assert_right, chosen, inputs_of, loss_of
from ntxent import reference

pytestmark = pytest.mark.only("jax")


@pytest.fixture
def jax() -> Any:
    import jax.export

    return jax


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request: Any, monkeypatch: Any) -> str:
    return chosen(request.param, monkeypatch)


@pytest.fixture(params=["float32", "float64"])
def dtype(request: Any, jax: Any) -> Iterator[str]:
    """float64 is enabled for float64 alone."""
    with jax.enable_x64(request.param == "float64"):
        yield request.param


@pytest.fixture
def compiled(jax: Any) -> Iterator[list[str]]:
    """The names of what has been compiled."""
    names: list[str] = []

    def listen(event: str, _: float, fun_name: str = "", **more: Any) -> None:
        names.extend([fun_name] * event.endswith("backend_compile_duration"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.covering(("implementation",), ("dtype",), pairs=False)
def test_traced_temperature(jax: Any, implementation: str, dtype: str, compiled: Any) -> None:
    """As good as a number on both sides of where a shift is needed, compiled once; NaN if bad."""
    loss = loss_of(implementation)
    step = jit(jax.value_and_grad(loss, ALL))
    for tau in (0.5, 0.05, 0.01, 0.001):
        inputs = inputs_of(dtype, tau)
        compiled.clear()
        traced = step(*inputs)
        assert bool(compiled) == (tau == 0.5)
        fixed = jax.value_and_grad(loss, (0, 1))(*inputs[:2], float(inputs[2]))
        for found in (traced, fixed):
            assert_right(found, inputs, dtype)
    for bad in (0.0, -0.5, np.inf, np.nan):
        assert all(np.isnan(x).all() for x in jax.tree.leaves(step(*inputs_of(dtype, bad))))


def test_what_compiles_again(jax: Any, implementation: str, compiled: list[str]) -> None:
    """A new shape does; a new number for the temperature does not, unless it now needs a shift."""
    shifted = ["jit(forward)", "jit(gradients)"] if implementation == "tiled" else []
    views = inputs_of("float32", images=61)[:2]
    for tau, expected in ((0.2, None), (0.3, []), (0.01, shifted)):
        compiled.clear()
        jax.value_and_grad(loss_of(implementation), (0, 1))(*views, tau)
        assert compiled if expected is None else compiled == expected


@pytest.mark.covering(("implementation",), ("denominator",), pairs=False)
@pytest.mark.parametrize("denominator", ["one_positive", "negatives"])
def test_ids_and_strings(jax: Any, implementation: str, denominator: str) -> None:
    """Inside jit, where the ids are traced, mapped over, or known while all else is traced."""
    inputs = inputs_of("float32")
    loss = loss_of(implementation, denominator=denominator, reduction="none")
    choices = jax.numpy.asarray([[0, 0, 1, 1, 2], [3, 1, 2, 1, 0]])
    mapped = jit(jax.vmap(lambda ids: loss(*inputs, ids=ids)))(choices)
    for ids, rows in zip(choices, mapped, strict=True):
        options = {"temperature": 0.2, "ids": ids, "denominator": denominator}
        expected = reference.row_losses(*(np.asarray(z) for z in inputs[:2]), **options)
        traced, known = jit(loss), jit(partial(loss, ids=ids))
        for found in (rows, traced(*inputs, ids=ids), known(*inputs)):
            np.testing.assert_allclose(found, expected, rtol=3e-6, atol=3e-6)


def test_errors_come_while_tracing_in_the_same_words(jax: Any) -> None:
    z, equal, f = inputs_of("float32")[0], jax.numpy.zeros(5, int), loss_of("tiled")
    for bad in (
        lambda z: f(z, z[:2], 0.1),
        lambda z: f(z, z.astype("bfloat16"), 0.1),
        lambda z: f(z, z, 0.1, reduction="x"),
        lambda z: f(z, z, 0.1, ids=z[0].astype(int)),
        lambda z: f(z, z, 0.1, ids=equal, denominator="negatives"),
    ):
        with pytest.raises((TypeError, ValueError), match=r"must|needs") as eager:
            bad(z)
        with pytest.raises(eager.type) as traced:
            jax.jit(bad).trace(z)
        assert str(traced.value) == str(eager.value)


@pytest.mark.covering(("implementation",), ("platform",), ("dtype",), pairs=False)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"], indirect=True)
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_export(jax: Any, implementation: str, platform: str, dtype: str) -> None:
    """For a device that isn't here; products have float32's digits there, unless told not to."""
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs_of(dtype)]
    for precision in (None, "bfloat16"):
        step = jax.jit(jax.value_and_grad(loss_of(implementation), ALL))
        with jax.default_matmul_precision(precision):
            found = jax.export.export(step, platforms=[platform])(*shapes)
        assert found.platforms == (platform,)
        assert [x.dtype for x in found.out_avals] == ["float32", dtype, dtype, dtype]
        products = [x for x in found.mlir_module().splitlines() if "stablehlo.dot_general" in x]
        assert len(products) >= 3
        assert all(("[HIGHEST, HIGHEST]" in line) == (precision is None) for line in products)
