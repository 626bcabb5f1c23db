"""JAX's strict settings: no silent promotion, no arrays whose shards nobody has provided for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from _jax_cases import CASES, PLACES, TAU, UNOPTIMISED, assert_right, inputs_of, loss_of

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


@pytest.mark.covering  # to trace all that is asked of a loss takes a second
@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_promoted(jax: Any, case: str, implementation: str, dtype: str) -> None:
    """Of value and gradients, mapped, reduced in each way, of a number and of an array."""
    kind = dtype.split(maxsplit=1)[0]
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


@pytest.mark.covering(("case",), ("implementation",), pairs=False)
def test_nothing_is_promoted_outside_jit(jax: Any, case: str, implementation: str) -> None:
    inputs = inputs_of()
    with strict(jax, "float32"):
        given = [jax.numpy.asarray(x) for x in inputs]
        assert_right(
            jax.value_and_grad(loss_of(case, implementation), PLACES)(*given), case, inputs
        )


@pytest.mark.covering
@pytest.mark.parametrize("dtype", [*DTYPES[:2], DTYPES[3]])
@pytest.mark.parametrize("exchange", ["gather", "ring", "dense"])
def test_nothing_is_promoted_across_devices(jax: Any, case: str, exchange: str, dtype: str) -> None:
    from jax.sharding import PartitionSpec as P

    how = {"implementation": "dense"} if exchange == "dense" else {"exchange": exchange}
    mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    for reduction in ("mean", "sum"):
        loss = loss_of(case, axis_name="i", reduction=reduction, **how)
        mean = lambda *x, loss=loss: jax.lax.pmean(loss(*x), "i")  # noqa: E731
        specs, kind = (P("i"),) * 4 + (P(),), dtype.split(maxsplit=1)[0]
        with strict(jax, dtype):
            whole = jax.shard_map(mean, mesh=mesh, in_specs=specs, out_specs=P())
            rows, tau = (jax.ShapeDtypeStruct(s, kind) for s in ((6, 4), ()))
            ids = jax.ShapeDtypeStruct((6,), "int32")
            step = jax.value_and_grad(whole, PLACES)
            value, grads = jax.eval_shape(step, rows, rows, rows, ids, tau)
            assert value.dtype == "float32"
            assert {grad.dtype for grad in grads} == {jax.numpy.dtype(kind)}


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

    a, b, c, *_ = map(jax.numpy.asarray, inputs_of())
    given = {"key": b, "negatives": c[:2], "ids": jax.numpy.arange(8)}
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    given[place] = jax.device_put(given[place], sharding)
    with pytest.raises(ValueError, match=f"^{place} is sharded over Explicit"):
        jax.jit(lambda x: info_nce(a, **x))(given)


@pytest.mark.covering(("case",), ("implementation",), pairs=False)
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
