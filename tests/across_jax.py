"""JAX's losses over shards of a batch: `python tests/across_jax.py` prints their errors.

`--write` puts them into docs/scaling.md.

The devices are virtual ones of the CPU. In float64 and relative to one process that holds the whole
batch; the bounds are those of `tests/_shards.py`.
"""

from __future__ import annotations

import os

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")  # conftest does so for the tests

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

import ntxent.jax
from _shards import EVEN, GRADIENT, LOSSES, TEMPERATURE, errors, shards, show
from _tolerances import assert_within

VIEWS = np.random.default_rng(0).standard_normal((2, 12, 6))
WAYS = {
    "gather": {"exchange": "gather"},
    "ring": {"exchange": "ring"},
    "dense": {"implementation": "dense"},
}
# Code is generated once and run once: without LLVM's optimisations it takes a third of the time.
compiled = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
Step = Callable[..., Any]


def loss_of(name: str, sizes: tuple[int, ...], **how: Any) -> Step:
    """Of one process: a function of its arrays, the temperature and its integers by name."""
    case = shards(name, sizes)
    loss = getattr(ntxent.jax, case.loss)

    def fn(arrays: Any, temperature: Any, integers: Any) -> Any:
        labels = [integers["labels"]] if "labels" in integers else []
        ids = {"ids": integers["ids"]} if "ids" in integers else {}
        options = {"temperature": temperature, **ids, **case.options, **how}
        return loss(*arrays, *labels, **options)

    return fn


def mesh_of(*sizes: int, axes: tuple[str, ...] = ("i",)) -> Mesh:
    """A mesh of virtual devices."""
    return Mesh(np.array(jax.devices("cpu")[: np.prod(sizes)]).reshape(sizes), axes)


def sharded(step: Step, mesh: Mesh, check_vma: bool = True) -> Step:
    """`step` of each process over a leading axis that lies over all axes of the mesh."""

    def on_one(*inputs: Any) -> Any:
        found = step(*jax.tree.map(lambda x: x[0], inputs))
        return jax.tree.map(lambda x: x[None], found)

    lead = PartitionSpec(mesh.axis_names)
    mapped = jax.shard_map(on_one, mesh=mesh, in_specs=lead, out_specs=lead, check_vma=check_vma)
    return compiled(mapped)


def stacked(name: str, sizes: tuple[int, ...], dtype: Any = float) -> tuple[Any, ...]:
    """The arrays, temperatures and integers of all processes along a leading axis."""
    case = shards(name, sizes)
    arrays = [np.stack(parts).astype(dtype) for parts in zip(*case.arrays, strict=True)]
    integers = {key: np.stack([x[key] for x in case.integers]) for key in case.integers[0]}
    return arrays, np.full(len(sizes), TEMPERATURE, dtype), integers


def errors_of(
    name: str,
    sizes: tuple[int, ...],
    run: Callable[[Step], Step] | None = None,
    dtype: Any = float,
    **how: Any,
) -> tuple[float, float]:
    """Of loss and gradient; each process differentiates the loss that it is given."""
    step = jax.value_and_grad(loss_of(name, sizes, **{"axis_name": "i", **how}), (0, 1))
    run = run or partial(sharded, mesh=mesh_of(len(sizes)))
    losses, (grads, by_temperature) = run(step)(*stacked(name, sizes, dtype))
    gradients = [[np.asarray(grad[process]) for grad in grads] for process in range(len(sizes))]
    return errors(name, sizes, np.asarray(losses), gradients, np.asarray(by_temperature))


def single(views: Any, temperature: Any, **options: Any) -> Any:
    """The loss and gradients of one process, by the dense form."""

    def loss(views: Any, temperature: Any) -> Any:
        return ntxent.jax.nt_xent(
            *views, temperature=temperature, implementation="dense", **options
        )

    return jax.value_and_grad(loss, (0, 1))(jax.numpy.asarray(views), temperature)


def assert_same(found: Any, expected: Any, bound: float = GRADIENT) -> None:
    """All arrays, relative to the largest entry of each."""
    for got, want in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        error = np.abs(np.asarray(got) - np.asarray(want)).max() / np.abs(want).max()
        assert_within(float(error), bound, "an array")


def main() -> None:
    """Print the table."""
    show(
        "jax",
        {
            (name, way): {sizes: errors_of(name, sizes, **how) for sizes in EVEN}
            for name in LOSSES
            for way, how in WAYS.items()
        },
    )


if __name__ == "__main__":
    with jax.enable_x64(True):
        main()
