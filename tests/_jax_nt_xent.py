"""JAX's `nt_xent`, a function of the views and the temperature, held against the plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np

from _tolerances import EPSILON, assert_within, relative_error, tolerance
from ntxent import reference

ALL = (0, 1, 2)  # the places of both views and the temperature
IMPLEMENTATIONS = ("dense", "tiled", "tiles of 4", "tiles of 4, kept")


def chosen(name: str, monkeypatch: Any) -> str:
    """The `implementation` to ask for, with tiles that the batches here have several of."""
    if "4" in name:
        monkeypatch.setattr("ntxent.jax._pairs.tiled.TILE", 4)
    if name == "tiles of 4":
        monkeypatch.setattr("ntxent.jax._pairs.tiled.KEEP_BYTES", 0)
    return "dense" if name == "dense" else "tiled"


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
