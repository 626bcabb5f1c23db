"""What JAX's users expect beyond the shared suite: of derivatives, `vmap`, forward mode, memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from _jax_cases import jit
from _jax_nt_xent import ALL, IMPLEMENTATIONS, assert_right, chosen, inputs_of, loss_of
from _largest import largest_array
from _tolerances import assert_within, relative_error, tolerance
from ntxent import reference

pytestmark = pytest.mark.only("jax")

DIRECTION = np.random.default_rng(1).standard_normal((5, 3))


@pytest.fixture
def jax() -> Any:
    import jax.test_util

    return jax


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request: Any, monkeypatch: Any) -> str:
    return chosen(request.param, monkeypatch)


@pytest.fixture(params=["float32", "float64"])
def dtype(request: Any, jax: Any) -> Iterator[str]:
    """float64 is enabled for float64 alone."""
    with jax.enable_x64(request.param == "float64"):
        yield request.param


@pytest.mark.covering(("implementation",), ("dtype",), pairs=False)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"], indirect=True)
def test_transformations(jax: Any, implementation: str, dtype: str, every: bool) -> None:
    """Each reduction; the gradients of views in half precision are of their dtype."""
    count, denominator = (2, "all") if dtype == "float32" else (3, "negatives")
    inputs, places = inputs_of(dtype, 0.25, count), range(count + 1)
    mean = loss_of(implementation, denominator=denominator)
    rows = partial(mean, reduction="none")

    def every_way(x: Any) -> Any:
        yield jax.value_and_grad(mean, places)(*x)
        yield rows(*x).mean(), [found.mean(0) for found in jax.jacrev(rows, places)(*x)]
        if (
            dtype != "float32" and not every
        ):  # what follows is compiled for half precision as for float32
            return
        yield mean(*x), jax.grad(mean, places)(*x)
        yield jax.value_and_grad(jax.jit(mean), places)(*x)
        yield jax.value_and_grad(jax.checkpoint(mean), places)(*x)
        yield jax.value_and_grad(lambda *x: mean(*x, reduction="sum") / 5 / count, places)(*x)
        yield jax.value_and_grad(lambda *x: rows(*x).mean(), places)(*x)

    for found in jit(lambda x: list(every_way(x)))(inputs):
        assert_right(found, inputs, dtype, denominator)


@pytest.mark.covering(("implementation",), ("axes",), pairs=False)
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


@pytest.mark.covering(("implementation",), ("dtype",), pairs=False)
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
