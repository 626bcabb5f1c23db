"""One batch over many devices, in JAX: what `tests/_shards.py` asks, in every way to run it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from _largest import largest_array
from _shards import EVEN, GRADIENT, LOSS, LOSSES, TEMPERATURE, few_positives, truth
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
@pytest.mark.covering(("name", "exchange"), ("sizes", "exchange"), pairs=False)
@pytest.mark.parametrize("exchange", ["gather", "ring"])
@pytest.mark.parametrize("sizes", EVEN, ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_shards_make_the_whole(across: Any, name: str, exchange: str, sizes: Any) -> None:
    """Every loss and every batch by each exchange; varying axes are checked, or aren't."""
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
    monkeypatch.setattr("ntxent.jax._pairs.tiled.TILE", 3)
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
@pytest.mark.covering(("name", "how"), ("check_vma",), pairs=False)
@pytest.mark.parametrize("name", ["sup_con", "info_nce, symmetric, queue, ids"])
@pytest.mark.parametrize("check_vma", [False, True])
def test_several_axes(across: Any, how: Any, check_vma: bool, name: str) -> None:
    mesh = across.mesh_of(2, 2, axes=("x", "y"))
    run = partial(across.sharded, mesh=mesh, check_vma=check_vma)
    assert_exact(across.errors_of(name, FOUR, run, axis_name=("x", "y"), **how))


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
    views = across.VIEWS.astype(np.float32)
    across.assert_same(
        across.compiled(mapped)(views).ravel(), rows(*jax.numpy.asarray(views)), 1e-6
    )


@pytest.mark.covering(("name",), ("exchange",), pairs=False)
@pytest.mark.parametrize("exchange", ["gather", "ring"])
@pytest.mark.parametrize("name", LOSSES)
def test_nan_of_one_process_reaches_all(across: Any, name: str, exchange: str) -> None:
    arrays, *others = across.stacked(name, THREE, np.float32)
    arrays[:2][-1][1, 2, 3] = np.nan  # a key: queries are met by keys alone
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

    monkeypatch.setattr("ntxent.jax._pairs.tiled.TILE", 16)
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
    monkeypatch.setattr("ntxent._spec.GATHER_BYTES", 4 * 2 * 50 * (8 + 1) * 4)
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
        (NameError, "unbound axis name: i", {"axis_name": "i"}),
    ],
)
def test_what_is_refused(across: Any, error: Any, words: str, options: Any) -> None:
    from ntxent.jax import info_nce, nt_xent, sup_con

    z = across.jax.numpy.ones((4, 2))
    for loss in (nt_xent, info_nce, lambda z, _, **how: sup_con(z, z[:, 0].astype(int), **how)):
        with pytest.raises(error, match=words):
            loss(z, z, **options)


@pytest.mark.usefixtures("dtype")
@pytest.mark.parametrize("pair", [False, True])
def test_few_rows_have_a_positive(across: Any, how: Any, pair: bool) -> None:
    """None, and the loss is 0 everywhere; two on three processes, and the mean is over two."""
    from ntxent.jax import sup_con

    jax = across.jax
    z, labels = few_positives(THREE, pair)
    expected = 0.0, np.zeros_like(z)
    if pair:
        single = jax.value_and_grad(partial(sup_con, implementation="dense"))
        expected = single(*map(jax.numpy.asarray, (z, labels)))
    step = jax.value_and_grad(partial(sup_con, axis_name="i", **how))
    shards = z.reshape(3, -1, z.shape[1]), labels.reshape(3, -1)
    losses, grads = across.sharded(step, across.mesh_of(3))(*shards)
    assert abs(losses.mean() - expected[0]) <= LOSS
    assert np.abs(grads.reshape(z.shape) / 3 - expected[1]).max() <= GRADIENT


@pytest.mark.usefixtures("dtype")
def test_one_image_a_process(across: Any, how: Any) -> None:
    """Other processes have its negatives; alone it is refused, in a mesh of one device too."""
    from ntxent.jax import nt_xent

    step = partial(nt_xent, denominator="negatives", axis_name="i", **how)
    four = across.sharded(step, across.mesh_of(4))(*across.VIEWS[:, :4, None])
    expected = across.single(across.VIEWS[:, :4], 0.1, denominator="negatives")[0]
    across.assert_same(four.mean(), expected)
    with pytest.raises(ValueError, match="at least one negative"):
        across.sharded(step, across.mesh_of(1))(*across.VIEWS[:, :1, None])
