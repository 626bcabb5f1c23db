"""What JAX's users expect beyond the shared suite."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from _jax_cases import jit
from _largest import largest_array
from _tolerances import EPSILON, assert_within, relative_error, tolerance
from ntxent import reference

pytestmark = pytest.mark.only("jax")

DIRECTION = np.random.default_rng(1).standard_normal((5, 3))
ALL = (0, 1, 2)  # the places of both views and the temperature


@pytest.fixture
def jax() -> Any:
    import jax.export
    import jax.test_util

    return jax


@pytest.fixture(params=["dense", "tiled", "tiles of 4", "tiles of 4, kept"])
def implementation(request: Any, monkeypatch: Any) -> str:
    if "4" in request.param:
        monkeypatch.setattr("ntxent.jax._pairs.tiled.TILE", 4)
    if request.param == "tiles of 4":
        monkeypatch.setattr("ntxent.jax._pairs.tiled.KEEP_BYTES", 0)
    return "dense" if request.param == "dense" else "tiled"


@pytest.fixture(params=["float32", "float64"])
def dtype(request: Any, jax: Any) -> Iterator[str]:
    """float64 is enabled for float64 alone."""
    with jax.enable_x64(request.param == "float64"):
        yield request.param


def inputs_of(dtype: str, tau: float = 0.2, count: int = 2, images: int = 5) -> list[Any]:
    """Views, and the temperature as an array."""
    import jax.numpy as jnp

    views = np.random.default_rng(0).standard_normal((count, images, 3))
    return [*jnp.asarray(views, dtype), jnp.asarray(tau, dtype)]


def loss_of(implementation: str, **options: Any) -> Any:
    """`nt_xent` with the temperature as its last positional argument."""
    from ntxent.jax import nt_xent

    def loss(*inputs: Any, **more: Any) -> Any:
        chosen = {"implementation": implementation, "temperature": inputs[-1], **options, **more}
        return nt_xent(*inputs[:-1], **chosen)

    return loss


def assert_right(found: Any, inputs: Any, dtype: str, denominator: str = "all") -> None:
    """Value and gradients, of the views and maybe of the temperature, are those of plain loops."""
    value, grads = found
    *views, tau = (np.asarray(x, np.float64) for x in inputs)
    options = {"temperature": float(tau), "denominator": denominator}
    kind = "float32" if dtype in EPSILON else dtype
    assert value.dtype == kind
    error = relative_error(np.asarray(value), reference.nt_xent(*views, **options))
    assert_within(error, tolerance(kind, "loss", float(tau)), "loss")
    truths, by_tau = reference.gradients(*views, **options)
    for grad, truth in zip(grads, [*truths, np.array(by_tau)], strict=False):
        assert grad.dtype == dtype
        error = relative_error(np.asarray(grad, kind), truth, np.abs(truth).max())
        bound = tolerance(kind, "gradient", float(tau)) + EPSILON.get(dtype, 0)
        assert_within(error, bound, "gradient")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"], indirect=True)
def test_transformations(jax: Any, implementation: str, dtype: str) -> None:
    """Each reduction; the gradients of views in half precision are of their dtype."""
    count, denominator = (2, "all") if dtype == "float32" else (3, "negatives")
    inputs, places = inputs_of(dtype, 0.25, count), range(count + 1)
    mean = loss_of(implementation, denominator=denominator)
    rows = partial(mean, reduction="none")

    def every_way(x: Any) -> Any:
        yield jax.value_and_grad(mean, places)(*x)
        yield rows(*x).mean(), [found.mean(0) for found in jax.jacrev(rows, places)(*x)]
        if dtype != "float32":  # what follows is compiled for half precision as for float32
            return
        yield mean(*x), jax.grad(mean, places)(*x)
        yield jax.value_and_grad(jax.jit(mean), places)(*x)
        yield jax.value_and_grad(jax.checkpoint(mean), places)(*x)
        yield jax.value_and_grad(lambda *x: mean(*x, reduction="sum") / 5 / count, places)(*x)
        yield jax.value_and_grad(lambda *x: rows(*x).mean(), places)(*x)

    for found in jit(lambda x: list(every_way(x)))(inputs):
        assert_right(found, inputs, dtype, denominator)


@pytest.mark.parametrize("axes", [(0, 0, None), (None, None, 0)], ids=["views", "temperature"])
def test_vmap(jax: Any, implementation: str, axes: Any) -> None:
    """Of grad and under grad, also where a part of the temperatures needs a shift."""
    inputs, loss = inputs_of("float32"), loss_of(implementation)
    given = [*(jax.numpy.stack([z, 3 - z * z]) for z in inputs[:2]), inputs[2]]
    if axes[2] == 0:
        given = [*inputs[:2], jax.numpy.asarray([0.5, 0.05, 0.01, 0.001])]
    values, grads = jit(jax.vmap(jax.value_and_grad(loss, ALL), axes))(*given)
    for i, value in enumerate(values):
        lane = [x if axis is None else x[i] for x, axis in zip(given, axes, strict=True)]
        assert_right((value, [grad[i] for grad in grads]), lane, "float32")
    totals = jit(jax.grad(lambda *x: jax.vmap(loss, axes)(*x).sum(), ALL))(*given)
    for total, grad, axis in zip(totals, grads, axes, strict=True):
        expected, scale = grad if axis == 0 else grad.sum(0), np.abs(grad).max()
        np.testing.assert_allclose(total, expected, atol=1e-5 * scale)


@pytest.mark.covering(("implementation",), ("denominator",), pairs=False)
@pytest.mark.parametrize("dtype", ["float64"], indirect=True)
@pytest.mark.parametrize("denominator", ["all", "negatives"])
def test_derivatives(jax: Any, implementation: str, dtype: str, denominator: str) -> None:
    """check_grads of first and second order, the temperature among the inputs."""
    normalize = denominator == "all"
    loss = jax.jit(loss_of(implementation, denominator=denominator, normalize=normalize))
    modes = ["fwd", "rev"] if implementation == "dense" else ["rev"]
    inputs = inputs_of(dtype, 0.3, count=3, images=2)
    jax.test_util.check_grads(loss, inputs, order=2, modes=modes, atol=1e-6, rtol=1e-6)


def test_traced_ids_that_are_all_equal_leave_nan(jax: Any, implementation: str) -> None:
    """Without negatives "negatives" has no value, and no gradient that looks like one."""
    z1, z2, tau = inputs_of("float32")
    loss = loss_of(implementation, denominator="negatives")
    both = jit(jax.value_and_grad(lambda z, ids: loss(z, z2, tau, ids=ids)))
    value, grad = both(z1, jax.numpy.zeros(5, int))
    assert jax.numpy.isnan(value)
    assert jax.numpy.isnan(grad).all()
    assert jax.numpy.isfinite(both(z1, jax.numpy.arange(5))[1]).all()


def test_rows_as_long_as_float32_goes(jax: Any, implementation: str) -> None:
    inputs = inputs_of("float32")
    inputs[0] = inputs[0] / abs(inputs[0]).max() * 3e38
    loss = loss_of(implementation)(*inputs)
    expected = reference.nt_xent(*map(np.asarray, inputs[:2]), temperature=float(inputs[2]))
    assert_within(relative_error(np.asarray(loss), expected), tolerance("float32", "loss", 0.2), "")


def test_hessians(jax: Any, implementation: str, dtype: str) -> None:
    """Reverse and forward over reverse, with a zero row; the truth is dense in float64."""
    tau, bound = (0.01, 1e-3) if dtype == "float32" else (0.2, 1e-12)
    inputs = inputs_of(dtype, tau)
    inputs[0] = inputs[0].at[2].set(0)
    tangents = [np.asarray(x, dtype) for x in (DIRECTION, 0 * DIRECTION, 0)]
    loss, truth = loss_of(implementation), jax.grad(loss_of("dense"), ALL)
    with jax.enable_x64(True):
        wide = [[jax.numpy.asarray(x, "float64") for x in xs] for xs in (inputs, tangents)]
        expected = jit(lambda *xs: jax.jvp(truth, *xs)[1])(*wide)

    def every_way(x: Any) -> Any:
        yield jax.grad(lambda *x: (jax.grad(loss)(*x) * DIRECTION).sum(), ALL)(*x)
        yield jax.jvp(jax.grad(loss, ALL), x, tangents)[1]
        yield [jax.numpy.einsum("ij,ijkl", tangents[0], jax.hessian(loss)(*x))]

    for found in jit(lambda x: list(every_way(x)))(inputs):
        for got, want in zip(found, expected, strict=False):
            np.testing.assert_allclose(got, want, atol=bound * np.abs(want).max())
    assert not expected[0][2].any()


@pytest.mark.parametrize("dtype", ["float64"], indirect=True)
def test_forward_mode_is_right_or_refused(jax: Any, implementation: str, dtype: str) -> None:
    """dense has it; tiled gives no tangent at all, and its page names dense."""
    from ntxent.jax import nt_xent

    z1, z2, tau = inputs_of(dtype)
    loss = jax.jit(loss_of(implementation))
    along = lambda x: loss(z1 + x * DIRECTION, z2 * (1 + x * z1), tau + x)  # noqa: E731
    for forward in (
        lambda: jax.jvp(along, [0.0], [1.0])[1],
        lambda: jax.jvp(jax.vmap(along), [jax.numpy.zeros(1)], [jax.numpy.ones(1)])[1][0],
        lambda: jax.linearize(along, 0.0)[1](1.0),
        lambda: jax.jacfwd(along)(0.0),
    ):
        if implementation == "dense":
            np.testing.assert_allclose(forward(), jax.grad(along)(0.0), rtol=1e-11)
        else:
            with pytest.raises(TypeError, match="forward-mode"):
                forward()
    assert '"dense"' in nt_xent.__doc__


def test_gradient_steps_in_a_scan(jax: Any, implementation: str) -> None:
    """Descent by three steps, and through all of them the derivative of the step's size."""
    *views, tau = inputs_of("float32")

    def train(rate: Any) -> Any:
        def step(z: Any, _: Any) -> Any:
            value, grad = jax.value_and_grad(loss_of(implementation))(z, views[1], tau)
            return z - rate * grad, value

        losses = jax.lax.scan(step, views[0], length=3)[1]
        return losses[2], losses

    def by_loops(rate: float) -> Any:
        z, other = (np.asarray(view, np.float64) for view in views)
        for _ in range(3):
            yield reference.nt_xent(z, other, temperature=0.2)
            z = z - rate * reference.gradients(z, other, temperature=0.2)[0][0]

    by_rate, losses = jit(jax.grad(train, has_aux=True))(0.1)
    low, middle, high = (list(by_loops(rate)) for rate in (0.1 - 1e-5, 0.1, 0.1 + 1e-5))
    np.testing.assert_allclose(losses, middle, rtol=2e-6)
    np.testing.assert_allclose(by_rate, (high[2] - low[2]) / 2e-5, rtol=1e-5)


@pytest.fixture
def compiled(jax: Any) -> Iterator[list[str]]:
    """The names of what has been compiled."""
    names: list[str] = []

    def listen(event: str, _: float, fun_name: str = "", **more: Any) -> None:
        names.extend([fun_name] * event.endswith("backend_compile_duration"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


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
    shifted = ["jit(_forward)", "jit(_backward)"] if implementation == "tiled" else []
    views = inputs_of("float32", images=61)[:2]
    for tau, expected in ((0.2, None), (0.3, []), (0.01, shifted)):
        compiled.clear()
        jax.value_and_grad(loss_of(implementation), (0, 1))(*views, tau)
        assert compiled if expected is None else compiled == expected


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


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("kept", [27, 28], ids=["no room for all tiles", "all kept"])
def test_no_operation_makes_a_matrix(jax: Any, monkeypatch: Any, traced: bool, kept: int) -> None:
    """Neither of the gradient nor of `jvp` of it; of 28 tiles 7 are on the diagonal."""
    monkeypatch.setattr("ntxent.jax._pairs.tiled.TILE", 64)
    monkeypatch.setattr("ntxent.jax._pairs.tiled.KEEP_BYTES", kept * 58 * 58 * 4)
    z, sizes, tau = jax.numpy.ones((200, 8)), {}, jax.numpy.asarray(0.1) if traced else 0.1
    for name in ("dense", "tiled"):
        step = jax.value_and_grad(lambda x, name=name: loss_of(name)(x, x, tau))
        twice = lambda x, step=step: jax.jvp(step, [x], [x])  # noqa: E731
        sizes[name] = [largest_array(jax.make_jaxpr(made)(z).jaxpr) for made in (step, twice)]
    assert sizes["dense"] == [400**2] * 2  # the measure sees a matrix where there is one
    assert sizes["tiled"] == [58 * 58 * (21 if kept == 28 else 1)] * 2
