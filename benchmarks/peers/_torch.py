"""PyTorch's: packages, the forms that are pasted, each compiled too, and ours."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from benchmarks.peers._form import Form, Loss, labels_of


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
    module = cache(lightly_module().NTXentLoss)  # made once, as one does

    return lambda z1, z2, temperature: module(temperature)(z1, z2)


@cache
def lightly_module() -> Any:
    """The loss's file alone: the package imports torchvision, which the loss doesn't need."""
    found = find_spec("lightly")
    if found is None or found.origin is None:
        msg = "lightly isn't installed; install it with: pip install --no-deps lightly"
        raise ImportError(msg)
    home = Path(found.origin).parent
    for name in ("", "loss", "models", "models.modules", "models.utils", "utils"):
        package = ModuleType(".".join(filter(None, ("lightly", name))))  # a folder without its code
        package.__path__ = [str(home.joinpath(*filter(None, name.split("."))))]
        sys.modules[package.__name__] = package
    cast(Any, sys.modules["lightly.models"]).utils = None  # for a memory bank over processes
    return import_module("lightly.loss.ntx_ent_loss")


def metric_learning() -> Loss:
    """pytorch-metric-learning's NTXentLoss: each positive against each negative of its row."""
    import torch
    from pytorch_metric_learning.losses import NTXentLoss

    module = cache(NTXentLoss)

    def loss(z1: torch.Tensor, z2: torch.Tensor, temperature: float) -> torch.Tensor:
        return module(temperature)(torch.cat([z1, z2]), torch.arange(len(z1)).repeat(2))

    return loss


def ours() -> Loss:
    """`ntxent.torch` as it comes: implementation=None, which keeps the first tiles."""
    from ntxent.torch import nt_xent

    return lambda z1, z2, temperature: nt_xent(z1, z2, temperature=temperature)


def recomputed() -> Loss:
    """The smallest: every tile is computed again in the backward pass."""
    from ntxent.torch import _tiled, nt_xent

    _tiled.KEEP_BYTES = 0  # each form has a process of its own
    return lambda z1, z2, temperature: nt_xent(
        z1, z2, temperature=temperature, implementation="tiled"
    )


def supcontrast() -> Loss:
    """The published form of SupCon, by a mask of equal labels."""
    import torch
    import torch.nn.functional as F

    def function(z: Any, labels: Any, temperature: float) -> Any:
        z = F.normalize(z, dim=1)
        others = 1 - torch.eye(len(z), dtype=z.dtype, device=z.device)
        positives = (labels[:, None] == labels).to(z.dtype) * others
        logits = z @ z.T / temperature
        logits = logits - logits.max(1, keepdim=True).values.detach()
        total = (logits.exp() * others).sum(1, keepdim=True)
        return -((positives * (logits - total.log())).sum(1) / positives.sum(1)).mean()

    return labelled(function)


def metric_learning_sup_con() -> Loss:
    """pytorch-metric-learning's SupConLoss, on both views as rows of their image's class."""
    from pytorch_metric_learning.losses import SupConLoss

    module = cache(SupConLoss)
    return labelled(lambda z, labels, temperature: module(temperature)(z, labels))


def our_sup_con() -> Loss:
    """`ntxent.torch.sup_con` as it comes."""
    from ntxent.torch import sup_con

    return labelled(lambda z, labels, temperature: sup_con(z, labels, temperature=temperature))


def labelled(function: Callable[..., Any]) -> Loss:
    """Of rows and labels, from two views."""
    import torch

    @cache
    def labels(images: int) -> torch.Tensor:
        return torch.from_numpy(labels_of(images)).repeat(2)

    def loss(z1: torch.Tensor, z2: torch.Tensor, temperature: float) -> torch.Tensor:
        return function(torch.cat([z1, z2]), labels(len(z1)), temperature)

    return loss


def clip() -> Loss:
    """CLIP's pair of cross-entropies over one matrix of logits."""
    import torch
    import torch.nn.functional as F

    def loss(z1: torch.Tensor, z2: torch.Tensor, temperature: float) -> torch.Tensor:
        logits = F.normalize(z1, dim=1) @ F.normalize(z2, dim=1).T / temperature
        own = torch.arange(len(z1), device=z1.device)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2

    return loss


def our_clip() -> Loss:
    """`ntxent.torch.info_nce` in both directions."""
    from ntxent.torch import info_nce

    return lambda z1, z2, temperature: info_nce(z1, z2, temperature=temperature, symmetric=True)


def ranking() -> Loss:
    """sentence-transformers' MultipleNegativesRankingLoss, as a formula of two embeddings."""
    import torch
    import torch.nn.functional as F

    def loss(z1: torch.Tensor, z2: torch.Tensor, temperature: float) -> torch.Tensor:
        scores = F.normalize(z1, dim=-1) @ F.normalize(z2, dim=-1).T * (1 / temperature)
        return F.cross_entropy(scores, torch.arange(len(scores), device=scores.device))

    return loss


def info_nce_package() -> Loss:
    """info-nce-pytorch's function, a query's own key against the other keys."""
    from info_nce import info_nce

    return lambda z1, z2, temperature: info_nce(z1, z2, temperature=temperature)


def our_one_way() -> Loss:
    """`ntxent.torch.info_nce` in one direction."""
    from ntxent.torch import info_nce

    return lambda z1, z2, temperature: info_nce(z1, z2, temperature=temperature)


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


PML = {"needs": "pytorch_metric_learning"}
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
        **PML,
    ),
    *both(Form("torch", "ntxent", "ntxent", ours, 350, 4, ours=True), 4.5, 0),
    Form("torch", "recomputed", "ntxent, tiles recomputed", recomputed, 350, 5, ours=True),
    *both(
        Form("torch", "supcontrast", "SupContrast", supcontrast, 500, 45, 32, loss="sup_con"),
        14,
        10,
    ),
    Form(
        "torch",
        "pml_sup_con",
        "pytorch-metric-learning, SupCon",
        metric_learning_sup_con,
        800,
        40,
        44,
        loss="sup_con",
        **PML,
    ),
    *both(
        Form(
            "torch", "sup_con", "ntxent, sup_con", our_sup_con, 500, 4.5, loss="sup_con", ours=True
        ),
        4.5,
        0,
    ),
    *both(Form("torch", "clip", "CLIP's cross-entropies", clip, 200, 6, 4, loss="clip"), 4, 2),
    *both(
        Form("torch", "our_clip", "ntxent, info_nce", our_clip, 400, 2, loss="clip", ours=True),
        2,
        0,
    ),
    *both(
        Form("torch", "ranking", "sentence-transformers", ranking, 200, 5, 3, loss="info_nce"), 4, 2
    ),
    Form(
        "torch",
        "info_nce_package",
        "info-nce-pytorch",
        info_nce_package,
        300,
        5,
        3,
        loss="info_nce",
        needs="info_nce",
    ),
    *both(
        Form(
            "torch", "info_nce", "ntxent, one way", our_one_way, 400, 2, loss="info_nce", ours=True
        ),
        2,
        0,
    ),
)
