"""What JAX does to a loss over a mesh: differentiates, maps, trains, divides it by itself."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from _shards import EVEN

pytestmark = [pytest.mark.only("jax"), pytest.mark.usefixtures("float64")]

FOUR = EVEN[3]


@pytest.fixture
def across() -> Any:
    """The helpers, which import JAX."""
    import across_jax

    return across_jax


@pytest.fixture
def float64(across: Any) -> Iterator[None]:
    with across.jax.enable_x64(True):
        yield


@pytest.fixture(params=["gather", "ring", "dense"])
def how(request: Any, across: Any) -> Any:
    """Keywords: each exchange, and the dense form."""
    return across.WAYS[request.param]


@pytest.mark.covering
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
    found = across.compiled(jax.value_and_grad(whole, (0, 1)))(across.VIEWS, tau)
    across.assert_same(found, across.single(across.VIEWS, tau))
    known = jax.value_and_grad(lambda views: whole(views, temperature))
    value, (grad, _) = across.single(across.VIEWS, tau)
    across.assert_same(across.compiled(known)(across.VIEWS), (value, grad))


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
    expected = jax.value_and_grad(loss)(weights, jax.numpy.asarray(across.VIEWS))
    across.assert_same(across.compiled(mapped)(weights, across.VIEWS), expected)


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
    value, grads = across.compiled(mapped)(across.VIEWS, taus)
    for i, tau in enumerate(taus):
        across.assert_same((value[i], (grads[0][i], grads[1][i])), across.single(across.VIEWS, tau))


def test_second_derivatives(across: Any, how: Any) -> None:
    """Of tiles over processes too: forward over reverse, and reverse over reverse."""
    from jax.sharding import PartitionSpec as P

    from ntxent.jax import nt_xent

    jax = across.jax
    tau, views = jax.numpy.asarray(0.3), jax.numpy.asarray(across.VIEWS)
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
    across.assert_same(across.compiled(lambda: every_way(whole))(), expected)


@pytest.mark.parametrize("implementation", ["dense", "tiled"])
@pytest.mark.parametrize("layout", ["rows", "rows and columns"])
def test_sharded_arrays_need_no_argument(across: Any, implementation: str, layout: str) -> None:
    """Under plain `jit` the compiler finds the exchange by itself."""
    from jax.sharding import NamedSharding, PartitionSpec

    from ntxent.jax import info_nce, nt_xent, sup_con

    jax = across.jax
    mesh = across.mesh_of(2, 2, axes=("x", "y"))
    rows, columns = (("x", "y"), None) if layout == "rows" else ("x", "y")
    sharding = NamedSharding(mesh, PartitionSpec(rows, columns))
    labels = np.arange(12) % 5

    def losses(implementation: str, z1: Any, z2: Any) -> Any:
        how = {"reduction": "none", "implementation": implementation}
        yield nt_xent(z1, z2, **how)
        yield sup_con(z1, jax.numpy.asarray(labels), **how)
        yield info_nce(z1, z2, symmetric=True, **how)

    def step(implementation: str, *views: Any) -> Any:
        total = lambda *z: sum(loss.sum() for loss in losses(implementation, *z))  # noqa: E731
        return list(losses(implementation, *views)), jax.grad(total, (0, 1))(*views)

    expected = across.compiled(partial(step, "dense"))(*across.VIEWS)
    views = [jax.device_put(view, sharding) for view in across.VIEWS]
    assert len(views[0].addressable_shards[0].data) < 12
    across.assert_same(across.compiled(partial(step, implementation))(*views), expected)


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
    value, grads = across.compiled(jax.value_and_grad(whole, (0, 1)))(across.VIEWS, tau)
    halves = [across.single(half, tau) for half in np.split(across.VIEWS, 2, 1)]
    across.assert_same(value, np.mean([half[0] for half in halves]))
    views = np.concatenate([half[1][0] for half in halves], 1) / 2
    across.assert_same(grads, (views, np.mean([half[1][1] for half in halves])))
