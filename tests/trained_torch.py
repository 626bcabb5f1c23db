"""An encoder and its loss: what each process of tests/test_torch_across.py trains.

tests/sharded_torch.py trains the same, for a learned temperature.
"""

from __future__ import annotations

from typing import Any

import torch

from ntxent import torch as losses


def encoder() -> Any:
    """The same everywhere."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.Tanh(), torch.nn.Linear(8, 6))


def batch(rank: int, size: int, step: int = 0) -> Any:
    """Own images of a step."""
    rng = torch.Generator().manual_seed(100 * step + rank)
    return torch.randn(2, size, 16, generator=rng)


class Trained(torch.nn.Module):
    """An encoder and its loss as one module, as DDP wants what is learned."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.encoder = encoder()
        self.loss = losses.NTXentLoss(temperature=0.2, learn_temperature=True, **options)

    def forward(self, images: Any) -> Any:
        return self.loss(*self.encoder(images))


def whole_batch(sizes: tuple[int, ...], steps: int = 1) -> Any:
    """The gradients of encoder and temperature, mean over the steps, with all images at hand."""
    model = Trained()
    for step in range(steps):
        images = torch.cat([batch(rank, size, step) for rank, size in enumerate(sizes)], 1)
        (model(images) / steps).backward()
    return [x.grad for x in model.parameters()]


def ddp(rank: int, sizes: tuple[int, ...], how: str) -> list[Any]:
    """The gradients that DistributedDataParallel leaves."""
    model: Any = Trained(group=True, exchange="ring" if how == "ring" else None)
    model = torch.nn.parallel.DistributedDataParallel(model)
    run = torch.compile(model, backend="aot_eager") if how == "compile" else model
    if how == "no_sync":
        with model.no_sync():
            (run(batch(rank, sizes[rank], 0)) / 2).backward()
        (run(batch(rank, sizes[rank], 1)) / 2).backward()
    else:
        run(batch(rank, sizes[rank])).backward()
    return [x.grad for x in model.parameters()]


def fsdp(rank: int, sizes: tuple[int, ...]) -> list[Any]:
    """The gradients that FSDP leaves, put together again."""
    from torch.distributed.fsdp import fully_shard

    model = encoder()
    fully_shard(model)
    losses.nt_xent(*model(batch(rank, sizes[rank])), temperature=0.2, group=True).backward()
    return [x.grad.full_tensor() for x in model.parameters()]
