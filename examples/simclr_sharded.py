"""SimCLR on real images by several devices, which train as one would; with JAX's `shard_map`.

python examples/simclr_sharded.py            about a minute, two virtual devices of the CPU
python examples/simclr_sharded.py --quick    two epochs, to see that it runs

Each device has its share of every batch and `axis_name` has the loss compare it with all of it. The
mean over devices is the loss of the batch, and its gradient is what the encoder is updated by: the
losses are those of simclr_digits.py but for rounding, and so is what the encoder learns.
"""

from __future__ import annotations

import os
import sys
from functools import partial

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")  # read when JAX starts

import _digits
import _digits_jax
import _digits_network
import _digits_training
import jax
import numpy as np
from _digits import Array
from _digits_jax import Kernels, projections
from _digits_network import Moments, adam
from jax.sharding import PartitionSpec

from ntxent.jax import nt_xent

BATCH = 128  # of all devices
TEMPERATURE = 0.5
MESH = jax.make_mesh((jax.device_count(),), ("batch",), (jax.sharding.AxisType.Auto,))
EVERYWHERE, SHARES = PartitionSpec(), PartitionSpec(None, "batch")


class Encoder(_digits_jax.Encoder):
    """The same encoder; its kernels are on all devices, and each takes its share of the images."""

    def step(self, views: Array, rate: float) -> float:
        """One step of Adam."""
        both = views.reshape(2, -1, *views.shape[1:])
        loss, self.kernels, self.moments = updated(self.kernels, self.moments, both, rate)
        return float(loss)


@jax.jit
@partial(
    jax.shard_map,
    mesh=MESH,
    in_specs=(EVERYWHERE, EVERYWHERE, SHARES, EVERYWHERE),
    out_specs=EVERYWHERE,
)
def updated(
    kernels: Kernels, moments: Moments, views: jax.Array, rate: float
) -> tuple[jax.Array, Kernels, Moments]:
    """The loss of the whole batch, and kernels and moments after a step."""

    def loss_of(kernels: Kernels) -> jax.Array:
        z1, z2 = (projections(kernels, view) for view in views)
        loss = nt_xent(z1, z2, temperature=TEMPERATURE, axis_name="batch")
        return jax.lax.pmean(loss, "batch")

    loss, gradients = jax.value_and_grad(loss_of)(kernels)
    return loss, *adam(kernels, gradients, moments, rate)


def main() -> None:
    """Score raw pixels and the untrained encoder, train, score again."""
    digits = _digits.load()
    encoder = Encoder(_digits_network.initial_kernels(seed=0), TEMPERATURE)
    scores = {
        "raw pixels": _digits.score(lambda x: x.reshape(len(x), -1), digits),
        "untrained encoder": _digits.score(encoder.features, digits),
    }
    epochs = 2 if "--quick" in sys.argv else 100
    rng = np.random.default_rng(0)
    losses = _digits_training.train(encoder, digits.train, epochs, BATCH, rng)
    scores["trained encoder"] = _digits.score(encoder.features, digits)
    print(_digits_training.summary(losses, epochs, BATCH) + "\n")
    print(_digits.table(scores))


if __name__ == "__main__":
    main()
