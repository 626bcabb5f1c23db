"""The forms that are compared: what people paste, and ours.

Each factory imports its framework and returns a function (z1, z2, temperature) -> loss; for NumPy,
which has no autograd, -> (loss, gradients).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

Loss = Callable[[Any, Any, float], Any]


def torch_eager() -> Loss:
    """The cross-entropy form, as most repositories have it."""
    import torch
    import torch.nn.functional as F

    def loss(z1: torch.Tensor, z2: torch.Tensor, temperature: float) -> torch.Tensor:
        z = F.normalize(torch.cat([z1, z2]), dim=1)
        itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
        logits = (torch.mm(z, z.T) / temperature).masked_fill(itself, -math.inf)
        partner = torch.arange(len(z), device=z.device).roll(len(z) // 2)
        return F.cross_entropy(logits, partner)

    return loss


def torch_compiled() -> Loss:
    """The same under torch.compile, for one shape, which is when it is fastest."""
    import torch

    compiled: Loss = torch.compile(torch_eager(), dynamic=False)
    return compiled


def torch_ours() -> Loss:
    """`ntxent.torch` as it comes: implementation=None, which keeps the first tiles."""
    from ntxent.torch import nt_xent

    return lambda z1, z2, temperature: nt_xent(z1, z2, temperature=temperature)


def torch_recomputed() -> Loss:
    """The smallest: every tile is computed again in the backward pass."""
    from ntxent.torch import _tiled, nt_xent

    def loss(z1: Any, z2: Any, temperature: float) -> Any:
        before, _tiled.KEEP_BYTES = _tiled.KEEP_BYTES, 0
        try:
            return nt_xent(z1, z2, temperature=temperature, implementation="tiled")
        finally:  # the forms take turns in one process
            _tiled.KEEP_BYTES = before

    return loss


def numpy_dense() -> Loss:
    """The matrix form with the gradient in closed form, in plain NumPy."""
    return _numpy("dense")


def numpy_tiled() -> Loss:
    """`ntxent.numpy` on tiles."""
    return _numpy("tiled")


def _numpy(implementation: str) -> Loss:
    from ntxent.numpy import nt_xent, value_and_grad

    both = value_and_grad(nt_xent)
    return lambda z1, z2, temperature: both(
        z1, z2, temperature=temperature, implementation=implementation
    )


def jax_dense() -> Loss:
    """The cross-entropy form in jax.numpy; `JaxRun` compiles it, as all of JAX's."""
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


def jax_ours_dense() -> Loss:
    """`ntxent.jax` with implementation="dense"."""
    from ntxent.jax import nt_xent

    return lambda z1, z2, temperature: nt_xent(
        z1, z2, temperature=temperature, implementation="dense"
    )


def jax_optax() -> Loss:
    """Optax's, which takes labels: the pairs are numbered."""
    import jax.numpy as jnp
    import optax

    def loss(z1: Any, z2: Any, temperature: float) -> Any:
        labels = jnp.tile(jnp.arange(len(z1)), 2)
        return optax.losses.ntxent(jnp.concatenate([z1, z2]), labels, temperature)

    return loss


def jax_ours() -> Loss:
    """`ntxent.jax` as it comes."""
    from ntxent.jax import nt_xent

    return lambda z1, z2, temperature: nt_xent(z1, z2, temperature=temperature)


def tensorflow_simclr() -> Loss:
    """As SimCLR's authors published it: two products a view, softmax cross-entropy.

    Theirs is the sum of the views' means; half of it is the mean.
    """
    import tensorflow as tf

    def loss(z1: Any, z2: Any, temperature: float) -> Any:
        z1, z2 = tf.math.l2_normalize(z1, -1), tf.math.l2_normalize(z2, -1)
        count = tf.shape(z1)[0]
        labels = tf.one_hot(tf.range(count), 2 * count)
        itself = tf.one_hot(tf.range(count), count) * 1e9
        terms = []
        for own, other in ((z1, z2), (z2, z1)):
            same = tf.matmul(own, own, transpose_b=True) / temperature - itself
            across = tf.matmul(own, other, transpose_b=True) / temperature
            logits = tf.concat([across, same], 1)
            terms.append(tf.nn.softmax_cross_entropy_with_logits(labels, logits))
        return tf.reduce_mean(terms[0] + terms[1]) / 2

    return loss


def tensorflow_ours() -> Loss:
    """`ntxent.tensorflow` as it comes."""
    from ntxent.tensorflow import nt_xent

    return lambda z1, z2, temperature: nt_xent(z1, z2, temperature=temperature)


CLASSES = 100
# Images beyond these are copies of them: the float64 reference then takes a second at every size,
# and covers every row. No form looks at the values, so none gains by it.
DISTINCT = 2048


def labels_of(images: int) -> np.ndarray:
    """A class for each image, the same for each of its copies."""
    return np.arange(images) % DISTINCT % CLASSES


def torch_pml_sup_con() -> Loss:
    """pytorch-metric-learning's SupConLoss, on both views as rows of their image's class."""
    from pytorch_metric_learning.losses import SupConLoss

    return _sup_con(lambda z, labels, temperature: SupConLoss(temperature)(z, labels))


def torch_sup_con() -> Loss:
    """`ntxent.torch.sup_con` as it comes."""
    from ntxent.torch import sup_con

    return _sup_con(lambda z, labels, temperature: sup_con(z, labels, temperature=temperature))


def _sup_con(function: Callable[..., Any]) -> Loss:
    import torch

    def loss(z1: torch.Tensor, z2: torch.Tensor, temperature: float) -> torch.Tensor:
        labels = torch.from_numpy(labels_of(len(z1))).repeat(2)
        return function(torch.cat([z1, z2]), labels, temperature)

    return loss


def torch_clip() -> Loss:
    """CLIP's pair of cross-entropies over one matrix of logits."""
    import torch
    import torch.nn.functional as F

    def loss(z1: torch.Tensor, z2: torch.Tensor, temperature: float) -> torch.Tensor:
        logits = F.normalize(z1, dim=1) @ F.normalize(z2, dim=1).T / temperature
        own = torch.arange(len(z1), device=z1.device)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2

    return loss


def torch_info_nce() -> Loss:
    """`ntxent.torch.info_nce` in both directions."""
    from ntxent.torch import info_nce

    return lambda z1, z2, temperature: info_nce(z1, z2, temperature=temperature, symmetric=True)


@dataclass(frozen=True)
class Form:
    """A form, with what it costs: enough to plan a run that fits the machine and the patience.

    The cost is a step of forward and backward on two cores, `call_us` and `pair_ns` for each of the
    (2N)^2 pairs; `pair_bytes` of memory for each pair.
    """

    library: str
    name: str
    label: str
    make: Callable[[], Loss]
    call_us: float
    pair_ns: float
    pair_bytes: float = 0.0
    compiles: bool = False
    loss: str = "nt_xent"

    def seconds(self, images: int) -> float:
        """How long a step will take, roughly."""
        return self.call_us * 1e-6 + self.pair_ns * 1e-9 * (2 * images) ** 2

    def bytes(self, images: int) -> float:
        """How much memory a step will take, roughly; the tiled forms count as nothing."""
        return self.pair_bytes * (2 * images) ** 2


ALL = (
    Form("torch", "eager", "eager cross-entropy", torch_eager, 300, 20, 13),
    Form("torch", "compiled", "torch.compile", torch_compiled, 200, 14, 5, compiles=True),
    Form("torch", "ntxent", "ntxent", torch_ours, 350, 4.5),
    Form("torch", "recomputed", "ntxent, tiles recomputed", torch_recomputed, 350, 5),
    Form(
        "torch",
        "pml_sup_con",
        "pytorch-metric-learning, SupCon",
        torch_pml_sup_con,
        800,
        40,
        64,
        loss="sup_con",
    ),
    Form("torch", "sup_con", "ntxent, sup_con", torch_sup_con, 500, 4.5, loss="sup_con"),
    Form("torch", "clip", "CLIP's cross-entropies", torch_clip, 200, 5, 5, loss="info_nce"),
    Form("torch", "info_nce", "ntxent, info_nce", torch_info_nce, 400, 2, loss="info_nce"),
    Form("numpy", "dense", "NumPy, dense", numpy_dense, 200, 20, 13),
    Form("numpy", "tiled", "ntxent, NumPy", numpy_tiled, 200, 8),
    Form("jax", "dense", "JAX, jitted dense", jax_dense, 150, 9, 6, compiles=True),
    Form("jax", "softplus", "ntxent, JAX, dense", jax_ours_dense, 150, 8, 6, compiles=True),
    Form("jax", "optax", "optax", jax_optax, 500, 1600, 2100, compiles=True),
    Form("jax", "ntxent", "ntxent, JAX", jax_ours, 150, 4, compiles=True),
    Form("tensorflow", "simclr", "TensorFlow, SimCLR's", tensorflow_simclr, 2000, 10, 17),
    Form("tensorflow", "ntxent", "ntxent, TensorFlow", tensorflow_ours, 4000, 6),
    Form("tensorflow", "simclr_xla", "SimCLR's, XLA", tensorflow_simclr, 2000, 10, 17, True),
    Form("tensorflow", "ntxent_xla", "ntxent, XLA", tensorflow_ours, 2000, 5, compiles=True),
)
FORMS = {f"{form.library}.{form.name}": form for form in ALL}
# What the ratios are to, for each library and loss.
BASELINES = {
    ("torch", "nt_xent"): "torch.eager",
    ("torch", "sup_con"): "torch.pml_sup_con",
    ("torch", "info_nce"): "torch.clip",
    ("numpy", "nt_xent"): "numpy.dense",
    ("jax", "nt_xent"): "jax.dense",
    ("tensorflow", "nt_xent"): "tensorflow.simclr",
}


def installed(library: str) -> bool:
    """Whether the library can be imported."""
    return find_spec(library) is not None
