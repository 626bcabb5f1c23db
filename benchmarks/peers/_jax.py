"""JAX's, all of them compiled by `runs.JaxRun`."""

from __future__ import annotations

from typing import Any

from benchmarks.peers._form import Form, Loss


def cross_entropy() -> Loss:
    """The cross-entropy form in jax.numpy."""
    import jax
    import jax.numpy as jnp

    def loss(z1: Any, z2: Any, temperature: float) -> Any:
        z = jnp.concatenate([z1, z2])
        z = z / jnp.linalg.norm(z, axis=1, keepdims=True)
        rows = jnp.arange(len(z))
        logits = jnp.where(rows[:, None] == rows, -jnp.inf, z @ z.T / temperature)
        positive = logits[rows, jnp.roll(rows, len(z) // 2)]
        return (jax.nn.logsumexp(logits, axis=1) - positive).mean()

    return loss


def optax_ntxent() -> Loss:
    """Optax's, which takes labels: the pairs are numbered."""
    import jax.numpy as jnp
    import optax

    def loss(z1: Any, z2: Any, temperature: float) -> Any:
        labels = jnp.tile(jnp.arange(len(z1)), 2)
        return optax.losses.ntxent(jnp.concatenate([z1, z2]), labels, temperature)

    return loss


def dense() -> Loss:
    """`ntxent.jax` with implementation="dense"."""
    from ntxent.jax import nt_xent

    return lambda z1, z2, temperature: nt_xent(
        z1, z2, temperature=temperature, implementation="dense"
    )


def ours() -> Loss:
    """`ntxent.jax` as it comes."""
    from ntxent.jax import nt_xent

    return lambda z1, z2, temperature: nt_xent(z1, z2, temperature=temperature)


FORMS = (
    Form("jax", "jitted", "JAX, jitted cross-entropy", cross_entropy, 150, 9, 9, compiles=True),
    Form("jax", "optax", "optax", optax_ntxent, 500, 1600, 2100, compiles=True, needs="optax"),
    Form("jax", "dense", "ntxent, JAX, dense", dense, 150, 8, 9, compiles=True, ours=True),
    Form("jax", "ntxent", "ntxent, JAX", ours, 150, 4, compiles=True, ours=True),
)
