"""The demo's encoder in PyTorch."""

from __future__ import annotations

import torch
from _digits import Array
from _digits_network import BODY
from torch import Tensor, nn

from ntxent.torch import nt_xent

# Batches this small gain little from a second thread, and where another program has its core
# the threads wait for each other: on two busy cores one took 17 s where two took 121 s.
torch.set_num_threads(1)


class Encoder:
    """A `Sequential` body, a linear head and `torch.optim.Adam`."""

    def __init__(self, kernels: list[Array], temperature: float) -> None:
        *body, head = (torch.from_numpy(kernel) for kernel in kernels)
        layers: list[nn.Module] = []
        for (side, stride, channels), kernel in zip(BODY, body, strict=True):
            padding = (side - 1) // 2
            layer = nn.Conv2d(kernel.shape[2], channels, side, stride, padding, bias=False)
            layer.weight = nn.Parameter(kernel.permute(3, 2, 0, 1).contiguous())
            layers += [layer, nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(*head.shape, bias=False)
        self.head.weight = nn.Parameter(head.T.contiguous())
        self.optimizer = torch.optim.Adam([*self.body.parameters(), *self.head.parameters()])
        self.temperature = temperature

    def step(self, views: Array, rate: float) -> float:
        """Forward, backward, Adam."""
        z1, z2 = self.head(self.pooled(views)).chunk(2)
        loss = nt_xent(z1, z2, temperature=self.temperature)
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    @torch.no_grad()
    def features(self, images: Array) -> Array:
        """What the probe sees."""
        return self.pooled(images).numpy()

    @torch.no_grad()
    def projections(self, images: Array) -> Array:
        """What the loss compares."""
        return self.head(self.pooled(images)).numpy()

    def pooled(self, images: Array) -> Tensor:
        """The body's output, a row for each image."""
        return self.body(torch.from_numpy(images)[:, None])
