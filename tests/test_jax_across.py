"""One batch over many devices, in JAX: the contract of `_shards`, in every way to run it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from _largest import largest_array
from _shards import EVEN, GRADIENT, LOSS, LOSSES, TEMPERATURE, truth
from _tolerances import assert_within, tolerance

pytestmark = pytest.mark.only("jax")

WAYS = ("gather", "ring", "dense")
FOUR, THREE = EVEN[3], EVEN[2]
VIEWS = np.random.default_rng(0).standard_normal((2, 12, 6))


@pytest.fixture
def across() -> Any:
    """The helpers, which import JAX."""
    import across_jax

    return across_jax


@pytest.fixture(params=["float64"])
def dtype(request: Any, across: Any) -> Iterator[str]:
    with across.jax.enable_x64(request.param == "float64"):
        yield request.param


@pytest.fixture(params=WAYS)
def how(request: Any, across: Any) -> Any:
    """Keywords: each exchange, and the dense form."""
    return across.WAYS[request.param]


def assert_exact(found: tuple[float, float]) -> None:
    assert_within(found[0], LOSS, "loss")
    assert_within(found[1], GRADIENT, "gradient")


@pytest.mark.usefixtures("dtype")
@pytest.mark.parametrize("sizes", EVEN, ids=len)
@pytest.mark.parametrize("exchange", ["gather", "ring"])
@pytest.mark.parametrize("name", LOSSES)
def test_shards_make_the_whole(across: Any, name: str, exchange: str, sizes: Any) -> None:
    """Types of varying axes are checked, or aren't."""
    run = partial(across.sharded, mesh=across.mesh_of(len(sizes)), check_vma=len(sizes) % 2 == 0)
    assert_exact(across.errors_of(name, sizes, run, exchange=exchange))


@pytest.mark.usefixtures("dtype")
@pytest.mark.parametrize("name", LOSSES)
def test_shards_make_the_whole_of_the_dense_form(across: Any, name: str) -> None:
    assert_exact(across.errors_of(name, FOUR, implementation="dense"))


@pytest.mark.usefixtures("dtype")
@pytest.mark.parametrize("exchange", ["gather", "ring"])
@pytest.mark.parametrize("name", ["nt_xent, ids", "info_nce, symmetric, queue, ids"])
def test_ragged_tiles(across: Any, monkeypatch: Any, name: str, exchange: str) -> None:
    monkeypatch.setattr("ntxent.jax._tiled.TILE", 3)
    assert_exact(across.errors_of(name, FOUR, exchange=exchange))


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
@pytest.mark.parametrize("name", LOSSES)
def test_float32_stays_in_its_table(across: Any, name: str, dtype: str) -> None:
    loss, gradient = across.errors_of(name, THREE, dtype=dtype, exchange="ring")
    whole = abs(truth(name, THREE).loss)
    assert_within(loss / whole, tolerance(dtype, "loss", TEMPERATURE), "loss")
    assert_within(gradient, tolerance(dtype, "gradient", TEMPERATURE), "gradient")


@pytest.mark.usefixtures("dtype")
@pytest.mark.parametrize("name", ["sup_con", "info_nce, symmetric, queue, ids"])
def test_pmap_and_vmap(across: Any, how: Any, name: str) -> None:
    """What else binds the name of an axis."""
    jax = across.jax
    pmap = partial(jax.pmap, axis_name="i", devices=jax.devices("cpu")[:3])
    vmap = lambda step: across.compiled(jax.vmap(step, axis_name="i"))  # noqa: E731
    assert_exact(across.errors_of(name, THREE, pmap, **how))
    assert_exact(across.errors_of(name, THREE, vmap, **how))


@pytest.mark.usefixtures("dtype")
@pytest.mark.parametrize("check_vma", [False, True])
def test_several_axes(across: Any, how: Any, check_vma: bool) -> None:
    mesh = across.mesh_of(2, 2, axes=("x", "y"))
    run = partial(across.sharded, mesh=mesh, check_vma=check_vma)
    for name in ("sup_con", "info_nce, symmetric, queue, ids"):
        assert_exact(across.errors_of(name, FOUR, run, axis_name=("x", "y"), **how))


def single(across: Any, views: Any, temperature: Any, **options: Any) -> Any:
    """The loss and gradients of one process, by the dense form."""
    from ntxent.jax import nt_xent

    def loss(views: Any, temperature: Any) -> Any:
        return nt_xent(*views, temperature=temperature, implementation="dense", **options)

    return across.jax.value_and_grad(loss, (0, 1))(across.jax.numpy.asarray(views), temperature)


def assert_same(found: Any, expected: Any, bound: float = GRADIENT) -> None:
    """All arrays, relative to the largest entry of each."""
    import jax

    for got, want in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        error = np.abs(np.asarray(got) - np.asarray(want)).max() / np.abs(want).max()
        assert_within(float(error), bound, "an array")


@pytest.mark.usefixtures("dtype")
@pytest.mark.parametrize("temperature", [0.5, 0.002])
@pytest.mark.parametrize("check_vma", [False, True])
def test_differentiated_from_outside(
    across: Any, how: Any, check_vma: bool, temperature: float
) -> None:
    """The mean of what `shard_map` gives; a replicated temperature, shifted and unshifted."""
    from jax.sharding import PartitionSpec as P

    from ntxent.jax import nt_xent

    jax = across.jax

    def on_one(views: Any, temperature: Any) -> Any:
        loss = nt_xent(*views, temperature=temperature, axis_name="i", **how)
        return jax.lax.pmean(loss, "i")

    whole = jax.shard_map(
        on_one,
        mesh=across.mesh_of(4),
        in_specs=(P(None, "i"), P()),
        out_specs=P(),
        check_vma=check_vma,
    )
    tau = jax.numpy.asarray(temperature)
    found = across.compiled(jax.value_and_grad(whole, (0, 1)))(VIEWS, tau)
    assert_same(found, single(across, VIEWS, tau))
    known = jax.value_and_grad(lambda views: whole(views, temperature))
    value, (grad, _) = single(across, VIEWS, tau)
    assert_same(across.compiled(known)(VIEWS), (value, grad))


@pytest.mark.usefixtures("dtype")
@pytest.mark.parametrize("check_vma", [False, True])
def test_a_training_step(across: Any, how: Any, check_vma: bool) -> None:
    """Gradients of replicated weights are those of one device, as the docstring has it.

    Where varying axes are checked JAX sums gradients of what is replicated by itself, and the mean
    belongs to the loss.
    """
    from jax.sharding import PartitionSpec as P

    from ntxent.jax import nt_xent

    jax = across.jax
    weights = np.random.default_rng(1).standard_normal((6, 5))

    def loss(weights: Any, views: Any, **options: Any) -> Any:
        return nt_xent(*(jax.numpy.tanh(views @ weights)), temperature=0.3, **options)

    def step(weights: Any, views: Any) -> Any:
        own = partial(loss, axis_name="i", **how)
        if check_vma:
            mean = lambda *inputs: jax.lax.pmean(own(*inputs), "i")  # noqa: E731
            return jax.value_and_grad(mean)(weights, views)
        return jax.lax.pmean(jax.value_and_grad(own)(weights, views), "i")

    mesh, specs = across.mesh_of(4), (P(), P(None, "i"))
    mapped = jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=check_vma)
    expected = jax.value_and_grad(loss)(weights, jax.numpy.asarray(VIEWS))
    assert_same(across.compiled(mapped)(weights, VIEWS), expected)


@pytest.mark.usefixtures("dtype")
def test_vmap_inside(across: Any, how: Any) -> None:
    """Several temperatures at once, one of which needs a shift; some axes of a mesh alone."""
    from jax.sharding import PartitionSpec as P

    jax = across.jax
    taus = jax.numpy.asarray([0.5, 0.002])
    loss = across.loss_of("nt_xent", FOUR, axis_name="x", **how)
    mean = lambda views, tau: jax.lax.pmean(loss(views, tau, {}), "x")  # noqa: E731
    many = jax.vmap(jax.value_and_grad(mean, (0, 1)), (None, 0))
    mesh, specs = across.mesh_of(2, 2, axes=("x", "y")), (P(None, "x"), P())
    out = (P(), (P(None, None, "x"), P()))
    mapped = jax.shard_map(many, mesh=mesh, in_specs=specs, out_specs=out)
    value, grads = across.compiled(mapped)(VIEWS, taus)
    for i, tau in enumerate(taus):
        assert_same((value[i], (grads[0][i], grads[1][i])), single(across, VIEWS, tau))


@pytest.mark.usefixtures("dtype")
def test_second_derivatives(across: Any, how: Any) -> None:
    """Of tiles over processes too: forward over reverse, and reverse over reverse."""
    from jax.sharding import PartitionSpec as P

    from ntxent.jax import nt_xent

    jax = across.jax
    tau, views = jax.numpy.asarray(0.3), jax.numpy.asarray(VIEWS)
    direction = jax.numpy.cos(views)

    def on_one(views: Any, tau: Any) -> Any:
        loss = nt_xent(*views, temperature=tau, axis_name="i", **how)
        return jax.lax.pmean(loss, "i")

    specs = (P(None, "i"), P())
    whole = jax.shard_map(on_one, mesh=across.mesh_of(4), in_specs=specs, out_specs=P())
    one = partial(nt_xent, implementation="dense")

    def every_way(loss: Any) -> Any:
        grad = jax.grad(loss, (0, 1))
        along = lambda views, tau: (grad(views, tau)[0] * direction).sum()  # noqa: E731
        forward = jax.jvp(grad, (views, tau), (direction, jax.numpy.ones_like(tau)))
        return forward, jax.grad(along, (0, 1))(views, tau)

    expected = every_way(lambda views, tau: one(*views, temperature=tau))
    assert_same(across.compiled(lambda: every_way(whole))(), expected)


@pytest.mark.usefixtures("dtype")
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("implementation", ["dense", "tiled"])
@pytest.mark.parametrize("layout", ["rows", "rows and columns"])
def test_sharded_arrays_need_no_argument(
    across: Any, implementation: str, layout: str, reduction: str
) -> None:
    """Under plain `jit` the compiler finds the exchange by itself."""
    from jax.sharding import NamedSharding, PartitionSpec

    from ntxent.jax import info_nce, nt_xent, sup_con

    jax = across.jax
    mesh = across.mesh_of(2, 2, axes=("x", "y"))
    rows, columns = (("x", "y"), None) if layout == "rows" else ("x", "y")
    sharding = NamedSharding(mesh, PartitionSpec(rows, columns))
    labels = np.arange(12) % 5

    def losses(implementation: str, z1: Any, z2: Any) -> Any:
        how = {"reduction": reduction, "implementation": implementation}
        yield nt_xent(z1, z2, **how)
        yield sup_con(z1, jax.numpy.asarray(labels), **how)
        yield info_nce(z1, z2, symmetric=True, **how)

    def step(implementation: str, *views: Any) -> Any:
        total = lambda *z: sum(loss.sum() for loss in losses(implementation, *z))  # noqa: E731
        return list(losses(implementation, *views)), jax.grad(total, (0, 1))(*views)

    expected = step("dense", *jax.numpy.asarray(VIEWS))
    views = [jax.device_put(view, sharding) for view in VIEWS]
    assert len(views[0].addressable_shards[0].data) < 12
    assert_same(across.compiled(partial(step, implementation))(*views), expected)


@pytest.mark.usefixtures("dtype")
@pytest.mark.parametrize("implementation", ["dense", "tiled"])
def test_without_a_name_each_process_has_its_own_batch(across: Any, implementation: str) -> None:
    """Also where varying axes are checked and the temperature is replicated."""
    from jax.sharding import PartitionSpec as P

    from ntxent.jax import nt_xent

    jax = across.jax

    def on_one(views: Any, tau: Any) -> Any:
        loss = nt_xent(*views, temperature=tau, implementation=implementation)
        return jax.lax.pmean(loss, "i")

    specs = (P(None, "i"), P())
    whole = jax.shard_map(on_one, mesh=across.mesh_of(2), in_specs=specs, out_specs=P())
    tau = jax.numpy.asarray(0.3)
    value, grads = across.compiled(jax.value_and_grad(whole, (0, 1)))(VIEWS, tau)
    halves = [single(across, half, tau) for half in np.split(VIEWS, 2, 1)]
    assert_same(value, np.mean([half[0] for half in halves]))
    views = np.concatenate([half[1][0] for half in halves], 1) / 2
    assert_same(grads, (views, np.mean([half[1][1] for half in halves])))


def test_rows_of_no_reduction(across: Any, how: Any) -> None:
    """Each process has the losses of its own rows, view by view."""
    from jax.sharding import PartitionSpec as P

    from ntxent.jax import nt_xent

    jax = across.jax
    rows = partial(nt_xent, reduction="none")
    mapped = jax.shard_map(
        lambda views: rows(*views, axis_name="i", **how).reshape(2, -1),
        mesh=across.mesh_of(3),
        in_specs=P(None, "i"),
        out_specs=P(None, "i"),
    )
    views = VIEWS.astype(np.float32)
    assert_same(across.compiled(mapped)(views).ravel(), rows(*jax.numpy.asarray(views)), 1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_nan_of_one_process_reaches_all(across: Any, name: str) -> None:
    arrays, *others = across.stacked(name, THREE, np.float32)
    arrays[:2][-1][1, 2, 3] = np.nan  # a key: queries are met by keys alone
    for exchange in ("gather", "ring"):
        step = across.loss_of(name, THREE, axis_name="i", exchange=exchange)
        losses = across.sharded(step, across.mesh_of(3))(arrays, *others)
        assert np.isnan(losses).all()


def exchanged(across: Any, step: Any, rows: int) -> tuple[int, str]:
    """The largest array of one of 4 processes with so many rows of 8, and the program."""
    jax = across.jax
    z, labels = jax.numpy.ones((rows, 8)), jax.numpy.arange(rows) // 3
    found = jax.make_jaxpr(partial(jax.value_and_grad(step)), axis_env=[("i", 4)])(z, labels)
    return largest_array(found.jaxpr), str(found)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("loss", ["nt_xent", "sup_con", "info_nce"])
def test_a_ring_never_holds_all_rows(
    across: Any, monkeypatch: Any, loss: str, traced: bool
) -> None:
    """Nor a matrix; gathered rows are there where they are asked for, which the measure sees."""
    import ntxent.jax

    monkeypatch.setattr("ntxent.jax._tiled.TILE", 16)
    fn = getattr(ntxent.jax, loss)

    def step(z: Any, labels: Any, **how: Any) -> Any:
        second = labels if loss == "sup_con" else 2 * z
        options = {"symmetric": True} if loss == "info_nce" else {}
        tau = across.jax.numpy.asarray(0.1) if traced else 0.1
        return fn(z, second, temperature=tau, axis_name="i", **options, **how)

    own = 105 * 8 * (2 if loss == "nt_xent" else 1)
    ring, program = exchanged(across, partial(step, exchange="ring"), 100)
    assert ring <= own
    assert "ppermute" in program
    gather, program = exchanged(across, partial(step, exchange="gather"), 100)
    assert gather >= 4 * own * 100 // 105
    assert "ppermute" not in program


def test_many_rows_go_round(across: Any, monkeypatch: Any) -> None:
    """By default rows are gathered while they are small."""
    from ntxent.jax import nt_xent

    step = lambda z, _: nt_xent(z, 2 * z, axis_name="i")  # noqa: E731
    monkeypatch.setattr("ntxent.jax._across.GATHERED", 4 * 2 * 50 * (8 + 1) * 4)
    assert "ppermute" not in exchanged(across, step, 40)[1]
    assert "ppermute" in exchanged(across, step, 51)[1]


@pytest.mark.parametrize(
    ("error", "words", "options"),
    [
        (TypeError, "axis_name must be .* got int 3", {"axis_name": 3}),
        (TypeError, "axis_name must be .* got list", {"axis_name": ["i"]}),
        (TypeError, "axis_name must be .* got tuple", {"axis_name": ("i", "i")}),
        (TypeError, "axis_name must be .* got tuple", {"axis_name": ()}),
        (ValueError, "needs processes .* got axis_name=None", {"exchange": "ring"}),
        (ValueError, 'one of "gather", "ring"; got', {"axis_name": "i", "exchange": "x"}),
        (ValueError, 'one of "gather", "ring"; got', {"exchange": ["ring"]}),
        (
            ValueError,
            '"dense" holds .* got exchange="ring"',
            {"axis_name": "i", "exchange": "ring", "implementation": "dense"},
        ),
        (NameError, "i", {"axis_name": "i"}),
    ],
)
def test_what_is_refused(across: Any, error: Any, words: str, options: Any) -> None:
    from ntxent.jax import info_nce, nt_xent, sup_con

    z = across.jax.numpy.ones((4, 2))
    for loss in (nt_xent, info_nce, lambda z, _, **how: sup_con(z, z[:, 0].astype(int), **how)):
        with pytest.raises(error, match=words):
            loss(z, z, **options)


@pytest.mark.usefixtures("dtype")
def test_one_image_a_process(across: Any, how: Any) -> None:
    """Other processes have its negatives; alone it is refused, in a mesh of one device too."""
    from ntxent.jax import nt_xent

    step = partial(nt_xent, denominator="negatives", axis_name="i", **how)
    four = across.sharded(step, across.mesh_of(4))(*VIEWS[:, :4, None])
    expected = single(across, VIEWS[:, :4], 0.1, denominator="negatives")[0]
    assert_same(four.mean(), expected)
    with pytest.raises(ValueError, match="at least one negative"):
        across.sharded(step, across.mesh_of(1))(*VIEWS[:, :1, None])
