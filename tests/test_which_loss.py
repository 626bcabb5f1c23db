"""The lines of docs/which-loss.md, each against the package or the formula that it stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from _tolerances import assert_within, relative_error
from ntxent import reference

pytestmark = [pytest.mark.only("torch"), pytest.mark.extras]

TAU = 0.2


def views(count: int = 2) -> list[Any]:
    """Views of 8 images, of any length, that want gradients."""
    import torch

    rng = np.random.default_rng(0)
    return [torch.tensor(rng.standard_normal((8, 4)), requires_grad=True) for _ in range(count)]


def constants(*shape: int) -> Any:
    import torch

    return torch.tensor(np.random.default_rng(1).standard_normal(shape))


def unit(z: Any) -> Any:
    import torch

    return torch.nn.functional.normalize(z, dim=-1)


def labels() -> Any:
    """Four labels, two images each, for the rows of both views."""
    import torch

    return (torch.arange(8) // 2).repeat(2)


def assert_same(ours: Any, theirs: Any, inputs: list[Any], bound: float = 1e-9) -> None:
    """Value, and the gradient of every input."""
    import torch

    assert_within(relative_error(ours.item(), theirs.item()), bound, "value")
    found, expected = (
        [grad.numpy() for grad in torch.autograd.grad(loss, inputs, retain_graph=True)]
        for loss in (ours, theirs)
    )
    for mine, other in zip(found, expected, strict=True):
        assert_within(relative_error(mine, other, np.abs(other).max()), bound, "gradient")


@pytest.mark.parametrize("base", [0.07, 0.2])
def test_supcontrast(base: float) -> None:
    """Its formula: the row maximum is subtracted, the self pair masked, the rest a mean of logs."""
    import torch

    from ntxent.torch import nt_xent, sup_con

    z1, z2 = views()

    def published(kinds: Any) -> Any:
        z = unit(torch.cat([z1, z2]))
        logits = z @ z.T / TAU
        others = 1 - torch.eye(len(z), dtype=z.dtype)
        positives = (kinds[:, None] == kinds).to(z.dtype) * others
        log_share = logits - (logits.exp() * others).sum(1, keepdim=True).log()
        return -(TAU / base) * ((positives * log_share).sum(1) / positives.sum(1)).mean()

    ours = TAU / base * sup_con(torch.cat([z1, z2]), labels(), temperature=TAU)
    assert_same(ours, published(labels()), [z1, z2])
    ours = TAU / base * nt_xent(z1, z2, temperature=TAU)
    assert_same(ours, published(torch.arange(8).repeat(2)), [z1, z2])


def test_the_authors_simclr() -> None:
    """Two products for each view, a large number taken off the diagonal, two means added."""
    import torch
    import torch.nn.functional as F

    from ntxent.torch import nt_xent

    z1, z2 = views()
    own = torch.arange(8)
    terms = []
    for a, b in ((unit(z1), unit(z2)), (unit(z2), unit(z1))):
        within = a @ a.T / TAU - 1e9 * torch.eye(8, dtype=a.dtype)
        terms.append(F.cross_entropy(torch.cat([a @ b.T / TAU, within], 1), own))
    assert_same(2 * nt_xent(z1, z2, temperature=TAU), terms[0] + terms[1], [z1, z2])


@pytest.mark.parametrize("count", [2, 3])
def test_pytorch_metric_learning_nt_xent(count: int) -> None:
    import torch
    from pytorch_metric_learning import losses

    from ntxent.torch import nt_xent

    z = views(count)
    theirs = losses.NTXentLoss(TAU)(torch.cat(z), torch.arange(8).repeat(count))
    assert_same(nt_xent(*z, temperature=TAU, denominator="one_positive"), theirs, z)


def test_pytorch_metric_learning_sup_con() -> None:
    """Rows of a label of their own are left out of both means."""
    import torch
    from pytorch_metric_learning import losses

    from ntxent.torch import sup_con

    z1, z2 = views()
    kinds = labels()
    kinds[3] = 77
    z = torch.cat([z1, z2])
    assert_same(sup_con(z, kinds, temperature=TAU), losses.SupConLoss(TAU)(z, kinds), [z1, z2])


@pytest.mark.parametrize("count", [2, 3])
def test_optax(count: int) -> None:
    import jax
    import optax
    import torch

    from ntxent.torch import nt_xent

    z = views(count)
    rows, kinds = torch.cat(z).detach().numpy(), np.tile(np.arange(8), count)
    with jax.enable_x64(True):
        value, grad = jax.value_and_grad(optax.losses.ntxent)(jax.numpy.asarray(rows), kinds, TAU)
    ours = nt_xent(*z, temperature=TAU, denominator="one_positive")
    assert_within(relative_error(ours.item(), float(value)), 1e-9, "value")
    mine = torch.cat(torch.autograd.grad(ours, z)).numpy()
    assert_within(relative_error(mine, grad, float(np.abs(grad).max())), 1e-9, "gradient")


def test_lightly() -> None:
    """Its formula: each row's own similarity is dropped from the row, then cross-entropy."""
    import torch
    import torch.nn.functional as F

    from ntxent.torch import nt_xent

    z1, z2 = views()
    z = unit(torch.cat([z1, z2]))
    kept = ~torch.eye(16, dtype=torch.bool)
    logits = (z @ z.T / TAU)[kept].reshape(16, 15)
    target = torch.cat([torch.arange(8) + 7, torch.arange(8)])
    assert_same(nt_xent(z1, z2, temperature=TAU), F.cross_entropy(logits, target), [z1, z2])


@pytest.mark.parametrize("mode", [None, "unpaired", "paired"])
def test_info_nce_pytorch(mode: str | None) -> None:
    import info_nce as package
    import torch

    from ntxent.torch import info_nce

    z1, z2 = views()
    if mode is None:
        theirs = package.info_nce(z1, z2, temperature=TAU)
        assert_same(info_nce(z1, z2, temperature=TAU), theirs, [z1, z2])
        return
    negatives = constants(32, 4) if mode == "unpaired" else constants(8, 5, 4)
    negatives.requires_grad_()
    theirs = package.info_nce(z1, z2, negatives, temperature=TAU, negative_mode=mode)
    ids = torch.zeros(8).long()
    if mode == "unpaired":
        ids = torch.cat([torch.zeros(8), torch.ones(32)]).long()
    ours = info_nce(z1, z2, negatives, temperature=TAU, ids=ids)
    assert_same(ours, theirs, [z1, z2, negatives])


def test_moco() -> None:
    """Its formula: one positive logit, then those of the queue."""
    import torch
    import torch.nn.functional as F

    from ntxent.torch import info_nce

    (query,), key, queue = views(1), constants(8, 4), constants(32, 4)
    q, k, n = unit(query), unit(key), unit(queue)
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ n.T], 1) / TAU
    theirs = F.cross_entropy(logits, torch.zeros(8).long())
    only = torch.cat([torch.zeros(8), torch.ones(32)]).long()
    assert_same(info_nce(query, key, queue, temperature=TAU, ids=only), theirs, [query])


def test_clip() -> None:
    """Its formula, of features of unit length."""
    import torch
    import torch.nn.functional as F

    from ntxent.torch import info_nce

    z1, z2 = views()
    image, text = unit(z1), unit(z2)
    logit_scale = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    logits, own = logit_scale * image @ text.T, torch.arange(8)
    theirs = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    for normalize in (True, False):
        ours = info_nce(
            image, text, temperature=1 / logit_scale, symmetric=True, normalize=normalize
        )
        assert_same(ours, theirs, [z1, z2, logit_scale])


def test_sentence_transformers() -> None:
    """Its formula: anchors against all positives, then all hard negatives."""
    import torch
    import torch.nn.functional as F

    from ntxent.torch import info_nce

    z1, z2 = views()
    negatives, scale = constants(16, 4), 20.0
    candidates = unit(torch.cat([z2, negatives]))
    theirs = F.cross_entropy(unit(z1) @ candidates.T * scale, torch.arange(8))
    assert_same(info_nce(z1, z2, negatives, temperature=1 / scale), theirs, [z1, z2])


def test_three_views_tell_the_denominators_apart() -> None:
    """Each is the loops', and that of the peer which defines it so."""
    import torch
    from pytorch_metric_learning import losses

    from ntxent.torch import nt_xent

    z = views(3)
    numbers = torch.arange(8).repeat(3)
    theirs = {
        "all": losses.SupConLoss(TAU)(torch.cat(z), numbers),
        "one_positive": losses.NTXentLoss(TAU)(torch.cat(z), numbers),
        "negatives": None,
    }
    found = {}
    for name, other in theirs.items():
        value = nt_xent(*z, temperature=TAU, denominator=name)
        found[name] = value.item()
        rows = [x.detach().numpy() for x in z]
        expected = reference.nt_xent(*rows, temperature=TAU, denominator=name)
        assert_within(relative_error(found[name], expected), 1e-12, name)
        if other is not None:
            assert_same(value, other, z)
    values = sorted(found.values())
    assert values[1] - values[0] > 0.01
    assert values[2] - values[1] > 0.01
