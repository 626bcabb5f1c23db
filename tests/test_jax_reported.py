"""What users of JAX have tripped over: sizes left open, arrays of NumPy, forward mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from _jax_cases import CASES, PLACES, UNOPTIMISED, assert_right, inputs_of, loss_of, truth

pytestmark = pytest.mark.only("jax")


@pytest.fixture
def jax() -> Any:
    import jax.export

    return jax


@pytest.fixture(params=CASES)
def case(request: Any) -> str:
    return str(request.param)


@pytest.fixture(params=["dense", "tiled"])
def implementation(request: Any, monkeypatch: Any) -> str:
    """With several tiles, the last of them ragged."""
    monkeypatch.setattr("ntxent.jax._pairs.tiled.TILE", 4)
    return str(request.param)


# Symbolic sizes


@pytest.mark.covering(("case",), ("shape",), pairs=False)
@pytest.mark.parametrize("shape", ["n, 4", "2*n, d"])
def test_a_size_that_export_leaves_open(jax: Any, case: str, shape: str) -> None:
    """One export gives the right value and gradients of several sizes."""
    named = "dense" if shape == "n, 4" else None
    rows = jax.ShapeDtypeStruct(jax.export.symbolic_shape(shape), "float32")
    ids, tau = jax.ShapeDtypeStruct(rows.shape[:1], "int32"), jax.ShapeDtypeStruct((), "float32")
    step = jax.jit(jax.value_and_grad(loss_of(case, named), PLACES))
    exported = jax.export.export(step)(rows, rows, rows, ids, tau)
    for count in (4, 8):
        inputs = inputs_of(count)
        inputs[3] = inputs[3].astype("int32")
        assert_right(exported.call(*inputs), case, inputs)


def test_tiles_of_an_unknown_number_are_refused(jax: Any, case: str) -> None:
    """Where they are asked for by name, or through the exchange that they alone serve."""
    rows = jax.ShapeDtypeStruct(jax.export.symbolic_shape("n, 4"), "float32")
    ids, tau = jax.ShapeDtypeStruct(rows.shape[:1], "int32"), jax.ShapeDtypeStruct((), "float32")
    words = r'implementation="tiled" needs to know.*\(n, 4\).*Use implementation="dense"'
    with pytest.raises(ValueError, match=words):
        jax.export.export(jax.jit(loss_of(case, "tiled")))(rows, rows, rows, ids, tau)


# Arrays of NumPy


def test_arrays_of_numpy(jax: Any, case: str) -> None:
    """Alone and beside JAX's, outside `jit`, under it and under `grad`, as `jax.numpy` has them."""
    inputs = inputs_of(dtype=np.float64)
    loss = loss_of(case)
    expected = truth(case, inputs)
    np.testing.assert_allclose(loss(*inputs), expected[0], rtol=3e-6)
    assert loss(*inputs).dtype == "float32"
    swapped = [x.astype(x.dtype.newbyteorder()) for x in inputs]
    np.testing.assert_allclose(loss(*swapped), expected[0], rtol=3e-6)

    def both(*x: Any) -> Any:
        yield loss(*x)
        yield loss(*inputs)
        yield jax.value_and_grad(lambda a: loss(a, *inputs[1:]))(x[0])

    step = jax.jit(lambda *x: list(both(*x)), compiler_options=UNOPTIMISED)
    traced, closed, (value, grad) = step(*inputs)
    np.testing.assert_allclose([traced, closed, value], [expected[0]] * 3, rtol=3e-6)
    size = np.abs(expected[1][0]).max()
    np.testing.assert_allclose(grad, expected[1][0], atol=1e-5 * size)


@pytest.mark.parametrize("case", ["nt_xent", "sup_con", "a queue"], indirect=True)
def test_gradients_of_arrays_of_numpy(jax: Any, case: str) -> None:
    inputs = inputs_of()
    assert_right(jax.value_and_grad(loss_of(case), PLACES)(*inputs), case, inputs)


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_integers_that_jax_would_cut_off_stay_apart(jax: Any, dtype: str, x64: bool) -> None:
    """2^32 and 0 are one in 32 bits."""
    from ntxent.jax import info_nce, nt_xent, sup_con

    a, b, c, ids, _ = inputs_of()
    large = ids.astype(dtype) << 32
    if dtype == "int64":
        large -= 2**40
    with jax.enable_x64(x64):
        for loss in (
            lambda ids: nt_xent(a, b, ids=ids),
            lambda ids: sup_con(a, ids),
            lambda ids: info_nce(a, b, c, ids=np.tile(ids, 2)),
        ):
            assert float(loss(large)) == float(loss(ids))
            assert float(loss(large)) != float(loss(0 * ids))


def test_numbers_of_numpy_are_temperatures(jax: Any) -> None:
    """Known ones: what isn't positive is refused, not NaN."""
    import ml_dtypes

    from ntxent.jax import nt_xent

    a, b, *_ = inputs_of()
    for kind in (np.float32, np.float64, np.float16, ml_dtypes.bfloat16, ">f8"):
        number = np.array(0.25, kind)
        for tau in (number, number[()], jax.numpy.float32(0.25)):
            assert float(nt_xent(a, b, temperature=tau)) == float(nt_xent(a, b, temperature=0.25))
    for bad in (np.array(-1.0), np.float32(0), np.array(np.nan)):
        with pytest.raises(ValueError, match="positive and finite"):
            nt_xent(a, b, temperature=bad)
    with pytest.raises(TypeError, match=r"temperature must be a number.*bool True"):
        nt_xent(a, b, temperature=np.array(True))


def test_what_jax_numpy_would_not_take_is_refused(jax: Any) -> None:
    from ntxent.jax import nt_xent, sup_con

    a, b, _, ids, _ = inputs_of()
    masked = np.ma.masked_array(a, mask=a > 0)
    for call, words in (
        (lambda: nt_xent(masked, b), "view 1 must be a jax.Array.*MaskedArray"),
        (lambda: nt_xent(a, b.tolist()), "view 2 must be a jax.Array.*list"),
        (lambda: nt_xent(a.astype(object), b), "view 1 must be of a real floating.*object"),
        (lambda: nt_xent(a + 0j, b), "view 1 must be of a real floating.*complex64"),
        (lambda: nt_xent(a, b.astype("float16")), "one dtype; got float32.*float16 for view 2"),
        (lambda: sup_con(a, ids.astype(float)), "labels must be integers"),
        (lambda: sup_con(a, ids.astype(str)), "labels must be integers"),
        (lambda: sup_con(a, ids.tolist()), "labels must be a jax.Array.*list"),
    ):
        with pytest.raises(TypeError, match=words):
            call()


# Forward mode


def test_forward_mode_of_tiles_names_what_to_write(jax: Any, case: str) -> None:
    """Whatever asks for it, and wherever JAX finds out: at once, or when it compiles."""
    inputs = [jax.numpy.asarray(x) for x in inputs_of()]
    ones = jax.numpy.ones(())
    for implementation in (None, "tiled"):
        loss = jax.jit(loss_of(case, implementation))
        along = lambda x, loss=loss: loss(x * inputs[0], *inputs[1:])  # noqa: E731
        by_tau = lambda t, loss=loss: loss(*inputs[:4], t)  # noqa: E731
        for forward in (
            lambda along=along: jax.jvp(along, [ones], [ones]),
            lambda by_tau=by_tau: jax.jvp(by_tau, inputs[4:], [ones]),
            lambda along=along: jax.jit(jax.jacfwd(along))(ones),
            lambda along=along: jax.jit(lambda x: jax.jvp(along, [x], [x]))(ones),
            lambda along=along: jax.linearize(along, ones)[1](ones),
            lambda along=along: jax.grad(lambda x: jax.jvp(along, [x], [ones])[1])(ones),
            lambda along=along: jax.vmap(jax.jacfwd(along))(ones[None]),
        ):
            with pytest.raises(TypeError, match=r'forward-mode.*Pass implementation="dense"'):
                forward()


def test_forward_mode_across_devices_names_what_to_write(jax: Any) -> None:
    P = jax.sharding.PartitionSpec
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    z = jax.numpy.asarray(inputs_of()[0])
    loss = loss_of("nt_xent", axis_name="x")
    mean = lambda z: jax.lax.pmean(loss(z, z, z, None, 0.2), "x")  # noqa: E731
    whole = jax.shard_map(mean, mesh=mesh, in_specs=P("x"), out_specs=P())
    with pytest.raises(TypeError, match=r'forward-mode.*Pass implementation="dense"'):
        jax.jit(lambda z: jax.jvp(whole, [z], [z]))(z)
