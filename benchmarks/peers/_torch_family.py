"""PyTorch's forms of the other losses: SupCon, CLIP's, and InfoNCE in one direction."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from benchmarks.peers._form import Form, Loss, labels_of
from benchmarks.peers._torch import PML, both


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
        value: torch.Tensor = function(torch.cat([z1, z2]), labels(len(z1)), temperature)
        return value

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


FORMS = (
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
        needs=PML,
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
