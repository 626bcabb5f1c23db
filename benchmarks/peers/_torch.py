"""PyTorch's: packages, the forms that are pasted, each compiled too, and ours."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache

from benchmarks.peers._alone import alone
from benchmarks.peers._form import Form, Loss


def cross_entropy() -> Loss:
    """One matrix of logits, the diagonal at -inf, cross-entropy with the partner's index."""
    import torch
    import torch.nn.functional as F

    def loss(z1: torch.Tensor, z2: torch.Tensor, temperature: float) -> torch.Tensor:
        z = F.normalize(torch.cat([z1, z2]), dim=1)
        itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
        logits = (torch.mm(z, z.T) / temperature).masked_fill(itself, -math.inf)
        partner = torch.arange(len(z), device=z.device).roll(len(z) // 2)
        return F.cross_entropy(logits, partner)

    return loss


def labels_mask() -> Loss:
    """A mask of equal labels; boolean indexing moves each row's positive to the front."""
    import torch
    import torch.nn.functional as F

    def loss(z1: torch.Tensor, z2: torch.Tensor, temperature: float) -> torch.Tensor:
        z = F.normalize(torch.cat([z1, z2]), dim=1)
        count = len(z)
        images = torch.arange(count // 2, device=z.device).repeat(2)
        same = images[:, None] == images
        others = ~torch.eye(count, dtype=torch.bool, device=z.device)
        scores = (z @ z.T)[others].view(count, count - 1)
        same = same[others].view(count, count - 1)
        positive, negative = scores[same].view(count, 1), scores[~same].view(count, -1)
        logits = torch.cat([positive, negative], 1) / temperature
        return F.cross_entropy(logits, torch.zeros(count, dtype=torch.long, device=z.device))

    return loss


def row_maximum() -> Loss:
    """Log-probabilities by hand below the row's maximum, weighed by the mask of positives."""
    import torch
    import torch.nn.functional as F

    def loss(z1: torch.Tensor, z2: torch.Tensor, temperature: float) -> torch.Tensor:
        z = F.normalize(torch.cat([z1, z2]), dim=1)
        images = torch.arange(len(z1), device=z.device).repeat(2)
        others = 1 - torch.eye(len(z), dtype=z.dtype, device=z.device)
        positives = (images[:, None] == images).to(z.dtype) * others
        logits = z @ z.T / temperature
        logits = logits - logits.max(1, keepdim=True).values.detach()
        total = (logits.exp() * others).sum(1, keepdim=True)
        means = (positives * (logits - total.log())).sum(1) / positives.sum(1)
        return -means.mean()

    return loss


def lightly() -> Loss:
    """lightly's NTXentLoss."""
    # without a module that is for a memory bank over processes
    found = alone("lightly.loss.ntx_ent_loss", {"lightly.models.utils": {}})
    module = cache(found.NTXentLoss)  # made once, as one does

    return lambda z1, z2, temperature: module(temperature)(z1, z2)


def metric_learning() -> Loss:
    """pytorch-metric-learning's NTXentLoss: each positive against each negative of its row."""
    import torch
    from pytorch_metric_learning.losses import NTXentLoss

    module = cache(NTXentLoss)

    def loss(z1: torch.Tensor, z2: torch.Tensor, temperature: float) -> torch.Tensor:
        value: torch.Tensor = module(temperature)(
            torch.cat([z1, z2]), torch.arange(len(z1)).repeat(2)
        )
        return value

    return loss


def ours() -> Loss:
    """`ntxent.torch` as it comes: implementation=None, which keeps the first tiles."""
    from ntxent.torch import nt_xent

    return lambda z1, z2, temperature: nt_xent(z1, z2, temperature=temperature)


def recomputed() -> Loss:
    """The smallest: every tile is computed again in the backward pass."""
    from ntxent.torch import nt_xent
    from ntxent.torch._pairs import tiled

    tiled.KEEP_BYTES = 0  # each form has a process of its own
    return lambda z1, z2, temperature: nt_xent(
        z1, z2, temperature=temperature, implementation="tiled"
    )


def under_compile(make: Callable[[], Loss]) -> Callable[[], Loss]:
    """A form under torch.compile, for one shape, which is when it is fastest."""

    def compiled() -> Loss:
        import torch

        found: Loss = torch.compile(make(), dynamic=False)
        return found

    return compiled


def both(form: Form, pair_ns: float, pair_bytes: float) -> tuple[Form, Form]:
    """A form, and it compiled, which costs as said."""
    compiled = replace(
        form,
        name=f"{form.name}_compiled",
        label=f"{form.label}, compiled",
        make=under_compile(form.make),
        pair_ns=pair_ns,
        pair_bytes=pair_bytes,
        compiles=True,
    )
    return form, compiled


PML = "pytorch_metric_learning"
FORMS = (
    *both(Form("torch", "eager", "cross-entropy", cross_entropy, 300, 20, 13), 14, 5),
    *both(Form("torch", "mask", "labels and mask", labels_mask, 600, 60, 40), 50, 30),
    *both(Form("torch", "row_maximum", "row maximum", row_maximum, 500, 45, 32), 14, 10),
    *both(Form("torch", "lightly", "lightly", lightly, 600, 35, 24, needs="lightly"), 35, 24),
    # its mask of positive against negative pairs is cubic in N: 2.2 GB at 256, 34 GB asked at 1024
    Form(
        "torch",
        "pml",
        "pytorch-metric-learning",
        metric_learning,
        2000,
        800,
        2100,
        most_images=512,
        needs=PML,
    ),
    *both(Form("torch", "ntxent", "ntxent", ours, 350, 4, ours=True), 4.5, 0),
    Form("torch", "recomputed", "ntxent, tiles recomputed", recomputed, 350, 5, ours=True),
)
