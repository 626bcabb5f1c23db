"""NumPy's: no package has the gradient, so the matrix form in closed form is the peer."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.peers._form import Form, Loss


def matrix() -> Loss:
    """Softmax over the whole matrix, and the gradient by hand."""

    def loss(z1: Any, z2: Any, temperature: float) -> Any:
        x = np.concatenate([z1, z2])
        norms = np.linalg.norm(x, axis=1, keepdims=True)
        z = x / norms
        logits = z @ z.T / temperature
        np.fill_diagonal(logits, -np.inf)
        rows = np.arange(len(z))
        partner = np.roll(rows, len(z1))
        top = logits.max(1, keepdims=True)
        shares = np.exp(logits - top)
        total = shares.sum(1, keepdims=True)
        value = np.mean(np.log(total[:, 0]) + top[:, 0] - logits[rows, partner])
        shares /= total
        shares[rows, partner] -= 1
        dz = (shares + shares.T) @ z / (temperature * len(z))
        dx = (dz - (dz * z).sum(1, keepdims=True) * z) / norms
        return value, np.split(dx, 2)

    return loss


def dense() -> Loss:
    """`ntxent.numpy` with implementation="dense"."""
    return _ours("dense")


def tiled() -> Loss:
    """`ntxent.numpy` as it comes."""
    return _ours(None)


def _ours(implementation: str | None) -> Loss:
    from ntxent.numpy import nt_xent, value_and_grad

    both = value_and_grad(nt_xent)
    return lambda z1, z2, temperature: both(
        z1, z2, temperature=temperature, implementation=implementation
    )


FORMS = (
    Form("numpy", "matrix", "NumPy, matrix", matrix, 200, 25, 17),
    Form("numpy", "dense", "ntxent, NumPy, dense", dense, 200, 20, 13, ours=True),
    Form("numpy", "ntxent", "ntxent, NumPy", tiled, 200, 4.5, ours=True),
)
