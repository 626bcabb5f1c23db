"""SimCLR on real images by several processes, which train as one process would.

torchrun --nproc-per-node 2 examples/simclr_ddp.py            under a minute
torchrun --nproc-per-node 2 examples/simclr_ddp.py --quick    two epochs, to see that it runs

Three things make a program one of several: `init_process_group`, `DistributedDataParallel` and
`group=True`. Each process has its share of every batch and the loss compares it with all of it, so
the losses are those of simclr_digits.py but for rounding, and so is what the encoder learns. It has
no batch normalisation; an encoder that has needs `torch.nn.SyncBatchNorm` for that.
"""

from __future__ import annotations

import os
import sys

import _digits
import _digits_network
import _digits_torch
import _digits_training
import numpy as np
import torch
import torch.distributed as dist
from _digits import Array
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ntxent.torch import nt_xent

BATCH = 128  # of all processes
TEMPERATURE = 0.5


class Encoder(_digits_torch.Encoder):
    """The same encoder, in every process: DDP gives all of them the mean of their gradients."""

    def __init__(self, kernels: list[Array], temperature: float, device: torch.device) -> None:
        super().__init__(kernels, temperature)
        self.device = device
        self.network = DistributedDataParallel(nn.Sequential(self.body, self.head).to(device))

    def step(self, views: Array, rate: float) -> float:
        """Forward, backward, Adam; of this process's share."""
        own = torch.from_numpy(share(views)).to(self.device)
        z1, z2 = self.network(own[:, None]).chunk(2)
        loss = nt_xent(z1, z2, temperature=self.temperature, group=True)
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        # For the report alone: the mean of what the processes have is the loss of the batch.
        mean = loss.detach() / dist.get_world_size()
        dist.all_reduce(mean)
        return mean.item()


def share(views: Array) -> Array:
    """Of both views of the batch, this process's images; shares may differ by one in size."""
    halves = (np.array_split(half, dist.get_world_size()) for half in np.split(views, 2))
    return np.concatenate([shares[dist.get_rank()] for shares in halves])


def device_of_this_process() -> torch.device:
    """A GPU of its own where there is one for every process, else the CPU."""
    place = int(os.environ["LOCAL_RANK"])
    if torch.cuda.device_count() < int(os.environ["LOCAL_WORLD_SIZE"]):
        return torch.device("cpu")
    torch.cuda.set_device(place)
    return torch.device("cuda", place)


def main() -> None:
    """Score raw pixels and the untrained encoder, train together, score again."""
    if not dist.is_torchelastic_launched():
        msg = (
            "simclr_ddp.py trains in several processes, and was started as one; start it with: "
            "torchrun --nproc-per-node 2 examples/simclr_ddp.py"
        )
        raise SystemExit(msg)
    device = device_of_this_process()
    dist.init_process_group()  # gloo on CPUs, NCCL on GPUs
    reports = dist.get_rank() == 0
    digits, kernels = _digits.load(), _digits_network.initial_kernels(seed=0)
    untrained = _digits_torch.Encoder(kernels, TEMPERATURE)
    scores = {}
    if reports:
        scores["raw pixels"] = _digits.score(lambda x: x.reshape(len(x), -1), digits)
        scores["untrained encoder"] = _digits.score(untrained.features, digits)
    encoder = Encoder(kernels, TEMPERATURE, device)
    epochs = 2 if "--quick" in sys.argv else 100
    # All processes draw the same views, and each takes its share of them.
    rng = np.random.default_rng(0)
    losses = _digits_training.train(encoder, digits.train, epochs, BATCH, rng, quiet=not reports)
    if reports:
        encoder.body.cpu()  # where it is scored
        scores["trained encoder"] = _digits.score(encoder.features, digits)
        print(_digits_training.summary(losses, epochs, BATCH) + "\n")
        print(_digits.table(scores))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
