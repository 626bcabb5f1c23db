"""JAX's settings and transformations that users of contrastive losses have tripped over."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.only("jax")

# loss(module, first, second, third, integers, temperature, **options), of every backend's module
CASES: dict[str, Callable[..., Any]] = {
    "nt_xent": lambda m, a, b, c, i, t, **o: m.nt_xent(a, b, temperature=t, **o),
    "three views": lambda m, a, b, c, i, t, **o: m.nt_xent(a, b, c, temperature=t, **o),
    "one positive": lambda m, a, b, c, i, t, **o: m.nt_xent(
        a, b, c, ids=i, temperature=t, denominator="one_positive", **o
    ),
    "negatives alone": lambda m, a, b, c, i, t, **o: m.nt_xent(
        a, b, c, ids=i, temperature=t, denominator="negatives", normalize=False, **o
    ),
    "sup_con": lambda m, a, b, c, i, t, **o: m.sup_con(a, i, temperature=t, **o),
    "info_nce": lambda m, a, b, c, i, t, **o: m.info_nce(a, b, temperature=t, **o),
    "both directions": lambda m, a, b, c, i, t, **o: m.info_nce(
        a, b, ids=i, symmetric=True, temperature=t, **o
    ),
    "a queue": lambda m, a, b, c, i, t, **o: m.info_nce(a, b, c, temperature=t, **o),
    "own negatives": lambda m, a, b, c, i, t, **o: m.info_nce(
        a, b, c if len(c.shape) == 3 else c[:, None], symmetric=True, temperature=t, **o
    ),
}
# Code is generated once and run once.
UNOPTIMISED = {"xla_backend_optimization_level": 0}
PLACES = (0, 1, 2, 4)  # what has a gradient: all but the integers
IDS = np.array([0, 1, 2, 0, 1, 2, 2, 3])
TAU = 0.2


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
    monkeypatch.setattr("ntxent.jax._tiled.TILE", 4)
    return str(request.param)


def inputs_of(count: int = 6, dtype: Any = np.float32) -> list[Any]:
    """Three arrays of rows, integers and the temperature, NumPy's."""
    views = np.random.default_rng(count).standard_normal((3, count, 4)).astype(dtype)
    return [*views, IDS[:count], np.array(TAU, dtype)]


def loss_of(case: str, implementation: str | None = None, **options: Any) -> Any:
    """JAX's, a function of `inputs_of`."""
    import ntxent.jax

    return lambda *x: CASES[case](ntxent.jax, *x, implementation=implementation, **options)


def truth(case: str, inputs: Any) -> Any:
    """Value and gradients in float64, by NumPy's closed forms."""
    import ntxent.numpy

    *views, ids, tau = map(np.asarray, inputs)
    wide = [np.asarray(x, np.float64) for x in (*views, tau)]
    loss = lambda a, b, c, t: CASES[case](ntxent.numpy, a, b, c, ids, t)  # noqa: E731
    if case != "own negatives":
        return ntxent.numpy.value_and_grad(loss)(*wide)
    wide[2] = wide[2][:, None]
    value, grads = ntxent.numpy.value_and_grad(loss)(*wide)
    return value, (*grads[:2], grads[2][:, 0], grads[3])


def assert_right(found: Any, case: str, inputs: Any) -> None:
    """Value and gradients are the truth."""
    (value, grads), (expected, truths) = found, truth(case, inputs)
    np.testing.assert_allclose(value, expected, rtol=3e-6)
    for grad, want in zip(grads, truths, strict=True):
        size = np.abs(want).max() if want is not None else 0.0
        np.testing.assert_allclose(grad, 0 if want is None else want, atol=1e-5 * size)


# Symbolic sizes


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


# What users set against silent promotion


@contextlib.contextmanager
def strict(jax: Any, dtype: str) -> Iterator[None]:
    """No promotion of ranks or dtypes; float64 where it is asked for."""
    wide = dtype.startswith("float64") or dtype.endswith("x64")
    with (
        jax.enable_x64(wide),
        jax.numpy_rank_promotion("raise"),
        jax.numpy_dtype_promotion("strict"),
    ):
        yield


DTYPES = ["float32", "float32 with x64", "float64", "bfloat16", "float16"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_promoted(jax: Any, case: str, implementation: str, dtype: str) -> None:
    """Of value and gradients, mapped, reduced in each way, of a number and of an array."""
    kind = dtype.split()[0]
    with strict(jax, dtype):
        rows, tau = (jax.ShapeDtypeStruct(shape, kind) for shape in ((6, 4), ()))
        ids = jax.ShapeDtypeStruct((6,), "uint8" if "16" in kind else "int32")
        loss = loss_of(case, implementation)
        number = lambda *x: loss(*x[:4], TAU)  # noqa: E731
        one = lambda *x: loss_of(case, implementation, reduction="none")(*x)[0]  # noqa: E731
        for fn in (loss, number, one):
            step = jax.value_and_grad(fn, PLACES)
            value, grads = jax.eval_shape(step, rows, rows, rows, ids, tau)
            assert value.dtype == ("float64" if kind == "float64" else "float32")
            assert {grad.dtype for grad in grads} == {jax.numpy.dtype(kind)}
        mapped = jax.vmap(jax.grad(loss), (0, None, None, None, None))
        many = jax.ShapeDtypeStruct((2, 6, 4), kind)
        jax.eval_shape(mapped, many, rows, rows, ids, tau)
        if dtype == "float32":
            jax.eval_shape(jax.hessian(loss), rows, rows, rows, ids, tau)


def test_nothing_is_promoted_outside_jit(jax: Any, case: str, implementation: str) -> None:
    inputs = inputs_of()
    with strict(jax, "float32"):
        given = [jax.numpy.asarray(x) for x in inputs]
        assert_right(
            jax.value_and_grad(loss_of(case, implementation), PLACES)(*given), case, inputs
        )


@pytest.mark.parametrize("dtype", ["float32", "float32 with x64", "bfloat16"])
@pytest.mark.parametrize("exchange", ["gather", "ring", "dense"])
def test_nothing_is_promoted_across_devices(
    jax: Any, case: str, exchange: str, dtype: str
) -> None:
    from jax.sharding import PartitionSpec as P

    how = {"implementation": "dense"} if exchange == "dense" else {"exchange": exchange}
    mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    for reduction in ("mean", "sum"):
        loss = loss_of(case, axis_name="i", reduction=reduction, **how)
        mean = lambda *x, loss=loss: jax.lax.pmean(loss(*x), "i")  # noqa: E731
        specs = (P("i"),) * 4 + (P(),)
        with strict(jax, dtype):
            whole = jax.shard_map(mean, mesh=mesh, in_specs=specs, out_specs=P())
            rows, tau = (jax.ShapeDtypeStruct(s, dtype.split()[0]) for s in ((6, 4), ()))
            ids = jax.ShapeDtypeStruct((6,), "int32")
            jax.eval_shape(jax.value_and_grad(whole, PLACES), rows, rows, rows, ids, tau)


# Arrays on a mesh of Explicit axes


@pytest.fixture
def mesh(jax: Any) -> Any:
    found = jax.make_mesh((2,), ("x",))
    assert found.axis_types == (jax.sharding.AxisType.Explicit,)
    return found


@pytest.mark.parametrize("where", ["eager", "jit"])
def test_explicit_shards_are_refused_with_both_remedies(
    jax: Any, mesh: Any, case: str, implementation: str, where: str
) -> None:
    P = jax.sharding.PartitionSpec
    inputs = [jax.numpy.asarray(x) for x in inputs_of()]
    loss = loss_of(case, implementation)
    for spec in (P("x"), P(None, "x")):
        sharded = jax.device_put(inputs[0], jax.sharding.NamedSharding(mesh, spec))
        words = r"(view 1|z|query) is sharded over Explicit.*shard_map.*axis_name.*reshard"
        with pytest.raises(ValueError, match=words):
            (jax.jit(loss) if where == "jit" else loss)(sharded, *inputs[1:])


@pytest.mark.parametrize("place", ["key", "negatives", "ids"])
def test_explicit_shards_of_any_array_are_refused(jax: Any, mesh: Any, place: str) -> None:
    from ntxent.jax import info_nce

    a, b, c, ids, _ = map(jax.numpy.asarray, inputs_of())
    given = {"key": b, "negatives": c[:2], "ids": jax.numpy.arange(8)}
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    given[place] = jax.device_put(given[place], sharding)
    with pytest.raises(ValueError, match=f"^{place} is sharded over Explicit"):
        jax.jit(lambda x: info_nce(a, **x))(given)


def test_the_remedies_for_explicit_shards(
    jax: Any, mesh: Any, case: str, implementation: str
) -> None:
    """Both give the loss and the gradients of the whole batch."""
    P, place = jax.sharding.PartitionSpec, jax.sharding.NamedSharding
    inputs, kinds = inputs_of(), (P("x"),) * 4 + (P(),)
    pairs = zip(inputs, kinds, strict=True)
    sharded = [jax.device_put(x, place(mesh, spec)) for x, spec in pairs]
    loss = loss_of(case, implementation)
    everywhere = lambda x: jax.sharding.reshard(x, place(mesh, P()))  # noqa: E731
    whole = lambda *x: loss(*map(everywhere, x))  # noqa: E731
    on_one = loss_of(case, implementation, axis_name="x")
    mean = lambda *x: jax.lax.pmean(on_one(*x), "x")  # noqa: E731
    parts = jax.shard_map(mean, mesh=mesh, in_specs=kinds, out_specs=P())
    for remedy in (whole, parts):
        step = jax.jit(jax.value_and_grad(remedy, PLACES), compiler_options=UNOPTIMISED)
        assert_right(step(*sharded), case, inputs)


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
    with pytest.raises(TypeError, match="temperature must be a number.*bool True"):
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


def test_an_array_of_numpy_may_be_written_to_before_the_gradient(
    jax: Any, implementation: str
) -> None:
    a, b, c, ids, _ = inputs_of()
    loss = loss_of("a queue", implementation)
    value, pull = jax.vjp(lambda a, t: loss(a, b, c, ids, t), a, TAU)
    untouched = inputs_of()
    b[:], c[:] = 7, 7
    grad, by_tau = pull(jax.numpy.ones_like(value))
    expected = truth("a queue", untouched)[1]
    np.testing.assert_allclose(grad, expected[0], atol=1e-5)
    np.testing.assert_allclose(by_tau, expected[3], rtol=1e-5)


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
            with pytest.raises(TypeError, match='forward-mode.*Pass implementation="dense"'):
                forward()


def test_forward_mode_across_devices_names_what_to_write(jax: Any) -> None:
    P = jax.sharding.PartitionSpec
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    z = jax.numpy.asarray(inputs_of()[0])
    loss = loss_of("nt_xent", axis_name="x")
    mean = lambda z: jax.lax.pmean(loss(z, z, z, None, 0.2), "x")  # noqa: E731
    whole = jax.shard_map(mean, mesh=mesh, in_specs=P("x"), out_specs=P())
    with pytest.raises(TypeError, match='forward-mode.*Pass implementation="dense"'):
        jax.jit(lambda z: jax.jvp(whole, [z], [z]))(z)
