# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""A user's program, read by type checkers and never run: what they are told of each loss.

pyright tests/user_program.py     as `nox -s types` does, with the frameworks installed

TensorFlow publishes no types, and is left out.
"""

from __future__ import annotations

from typing import Any, assert_type

import jax
import numpy as np
import torch

import ntxent.jax
import ntxent.numpy
import ntxent.torch


def of_torch(z1: torch.Tensor, z2: torch.Tensor, labels: torch.Tensor) -> None:
    assert_type(ntxent.torch.nt_xent(z1, z2, temperature=0.2), torch.Tensor)
    assert_type(ntxent.torch.sup_con(z1, labels, reduction="none"), torch.Tensor)
    assert_type(ntxent.torch.info_nce(z1, z2, symmetric=True), torch.Tensor)
    assert_type(ntxent.torch.NTXentLoss(learn_temperature=True).forward(z1, z2), torch.Tensor)


def of_jax(z1: jax.Array, z2: jax.Array, labels: jax.Array) -> None:
    assert_type(ntxent.jax.nt_xent(z1, z2, temperature=0.2), jax.Array)
    assert_type(ntxent.jax.sup_con(z1, labels, reduction="none"), jax.Array)
    assert_type(ntxent.jax.info_nce(z1, z2, symmetric=True), jax.Array)


def of_numpy(z1: np.ndarray[Any, Any], z2: np.ndarray[Any, Any]) -> None:
    """A number, an array, or what `value_and_grad` follows: Any."""
    assert_type(ntxent.numpy.nt_xent(z1, z2, temperature=0.2), Any)
    _, gradients = ntxent.numpy.value_and_grad(ntxent.numpy.nt_xent)(z1, z2)
    assert_type(gradients[0], np.ndarray[Any, Any])


def refused(z1: torch.Tensor, x1: jax.Array) -> None:
    """Each comment silences an error that must be there."""
    ntxent.torch.nt_xent(z1, z1, tau=0.2)  # type: ignore[call-arg]
    ntxent.torch.sup_con(z1)  # type: ignore[call-arg]
    ntxent.jax.nt_xent(x1, x1, group=True)  # type: ignore[call-arg]
