"""The lines of docs/which-loss.md against formulas as published, where no package has them."""

from __future__ import annotations

from typing import Any

import pytest

import _peers
from _lines import assert_same, constants, four_labels, tau, uneven_labels, unit, views
from _tolerances import relative_error

pytestmark = [pytest.mark.only("torch"), pytest.mark.extras]


def supcontrast(features: Any, labels: Any, base: float) -> Any:
    """Its formula, of features (N, V, d): self pairs masked, 0 for a row without a positive."""
    import torch

    views = features.shape[1]
    rows = torch.cat(features.unbind(1))
    logits = rows @ rows.T / tau
    others = 1 - torch.eye(len(rows), dtype=rows.dtype)
    kinds = labels.repeat(views)
    positives = (kinds[:, None] == kinds).to(rows.dtype) * others
    log_share = logits - (logits.exp() * others).sum(1, keepdim=True).log()
    return -(tau / base) * ((positives * log_share).sum(1) / positives.sum(1).clamp(min=1)).mean()


@pytest.mark.parametrize("base", [0.07, 0.2])
def test_supcontrast(base: float) -> None:
    import torch

    from ntxent.torch import nt_xent, sup_con

    z1, z2 = views()
    labels, kinds = four_labels(), four_labels()[:8]
    features = torch.stack([unit(z1), unit(z2)], 1)
    ours = tau / base * sup_con(torch.cat([z1, z2]), labels, temperature=tau)
    assert_same(ours, supcontrast(features, kinds, base), [z1, z2])
    ours = tau / base * nt_xent(z1, z2, temperature=tau)
    assert_same(ours, supcontrast(features, torch.arange(8), base), [z1, z2])


def test_supcontrast_of_features_of_any_length() -> None:
    """Of three views; it takes the products as they are."""
    import torch

    from ntxent.torch import sup_con

    z, kinds = views(3), four_labels()[:8]
    features, base = torch.stack(z, 1), 0.07
    rows, labels = torch.cat(features.unbind(1)), kinds.repeat(3)
    ours = tau / base * sup_con(rows, labels, temperature=tau, normalize=False)
    assert_same(ours, supcontrast(features, kinds, base), z)


def test_supcontrast_counts_rows_without_a_positive() -> None:
    """One view; two of the labels occur once."""
    from ntxent.torch import sup_con

    (rows,), base = views(1, 16), 0.07
    labels = uneven_labels()
    theirs = supcontrast(unit(rows)[:, None], labels, base)
    ours = tau / base * sup_con(rows, labels, temperature=tau, reduction="sum") / len(rows)
    assert_same(ours, theirs, [rows])
    left_out = tau / base * sup_con(rows, labels, temperature=tau)
    assert relative_error(left_out.item(), theirs.item()) > 0.1


def test_the_authors_simclr() -> None:
    """Two products for each view, a large number taken off the diagonal, two means added."""
    import torch
    import torch.nn.functional as F

    from ntxent.torch import nt_xent

    z1, z2 = views()
    own = torch.arange(8)
    terms = []
    for a, b in ((unit(z1), unit(z2)), (unit(z2), unit(z1))):
        within = a @ a.T / tau - 1e9 * torch.eye(8, dtype=a.dtype)
        terms.append(F.cross_entropy(torch.cat([a @ b.T / tau, within], 1), own))
    ours = 2 * nt_xent(z1, z2, temperature=tau)
    assert_same(ours, terms[0] + terms[1], [z1, z2])


def test_decoupled() -> None:
    """Its formula: minus the positive, plus the logarithm of all negatives; both views' means."""
    import torch

    from ntxent.torch import nt_xent

    z1, z2 = views()
    own = torch.eye(8, dtype=torch.bool)
    terms = []
    for a, b in ((unit(z1), unit(z2)), (unit(z2), unit(z1))):
        within, across = ((x / tau).masked_fill(own, -torch.inf) for x in (a @ a.T, a @ b.T))
        positive = (a * b).sum(1) / tau
        terms.append((torch.cat([within, across], 1).logsumexp(1) - positive).mean())
    rows1, rows2 = (unit(z) for z in (z1, z2))
    ours = 2 * nt_xent(rows1, rows2, temperature=tau, denominator="negatives")
    assert_same(ours, terms[0] + terms[1], [z1, z2])


@pytest.mark.parametrize("mode", ["all", "one_positive", "negatives"])
def test_google_research_sup_con(mode: str) -> None:
    """Its formula in each denominator, the mean of a value an image, times the temperature."""
    import torch

    from ntxent.torch import nt_xent, sup_con

    z = views(2 if mode == "all" else 3)
    count = len(z)
    kinds = four_labels()[:8] if mode == "all" else torch.arange(8)
    labels = kinds.repeat(count)
    same = labels[:, None] == labels
    positive = same & ~torch.eye(len(labels), dtype=torch.bool)
    rows = torch.cat([unit(view) for view in z])
    logits = rows @ rows.T / tau
    negatives = (logits.exp() * ~same).sum(1, keepdim=True)
    below = {
        "all": negatives + (logits.exp() * positive).sum(1, keepdim=True),
        "one_positive": negatives + logits.exp(),
        "negatives": negatives,
    }[mode]
    log_share = ((logits - below.log()) * positive).sum(1) / positive.sum(1)
    theirs = (-tau * log_share).reshape(count, 8).mean(0).mean()
    if mode == "all":
        z1, z2 = z
        ours = tau * sup_con(torch.cat([z1, z2]), labels, temperature=tau)
        assert_same(ours, theirs, z)
    else:
        assert_same(tau * nt_xent(*z, temperature=tau, denominator=mode), theirs, z)


def test_moco() -> None:
    """Its formula: one positive logit, then those of the queue; solo-learn has it so."""
    import torch
    import torch.nn.functional as F

    from ntxent.torch import info_nce

    (z1,), z2, queue = views(1), constants(8, 4), constants(32, 4)  # keys get no gradient
    q, k, n = unit(z1), unit(z2), unit(queue)
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ n.T], 1) / tau
    theirs = F.cross_entropy(logits, torch.zeros(8).long())
    only = torch.cat([torch.zeros(len(z1)), torch.ones(len(queue))]).long()
    ours = info_nce(z1, z2, queue, temperature=tau, ids=only)
    assert_same(ours, theirs, [z1])
    solo_learn = _peers.solo_learn("moco").moco_loss_func
    assert_same(ours, solo_learn(q, k, n.T, temperature=tau), [z1])
