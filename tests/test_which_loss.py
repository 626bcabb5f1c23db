"""The lines of docs/which-loss.md, each against the package or the formula that it stands for."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _tolerances import assert_within, relative_error
from blocks import blocks_of
from ntxent import reference

pytestmark = [pytest.mark.only("torch"), pytest.mark.extras]

tau = 0.2  # the names are those of the page
PAGE = Path(__file__).parents[1] / "docs/which-loss.md"


def blocks(text: str) -> list[str]:
    """The code of the page, or of a part of it."""
    return [block.code for block in blocks_of(text)]


def losses_in(code: str) -> set[str]:
    """What is assigned to a loss there, or to `ours`, in one spelling."""
    return {
        ast.unparse(node.value)
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("loss", "ours")
    }


def views(count: int = 2, images: int = 8) -> list[Any]:
    """Views of the images, of any length, that want gradients."""
    import torch

    rng = np.random.default_rng(0)
    shape = (images, 4)
    return [torch.tensor(rng.standard_normal(shape), requires_grad=True) for _ in range(count)]


def constants(*shape: int) -> Any:
    import torch

    return torch.tensor(np.random.default_rng(1).standard_normal(shape))


def unit(z: Any) -> Any:
    import torch

    return torch.nn.functional.normalize(z, dim=-1)


def four_labels() -> Any:
    """Two images each, for the rows of both views."""
    import torch

    return (torch.arange(8) // 2).repeat(2)


def uneven_labels() -> Any:
    """Classes of five rows, three, four, two, one and one, in no order."""
    import torch

    return torch.tensor([0, 1, 2, 0, 3, 0, 1, 4, 2, 0, 2, 5, 1, 0, 3, 2])


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


def metric_learning_nt_xent(rows: Any, labels: Any) -> tuple[float, Any]:
    """The value of pytorch-metric-learning, and its gradient by the rows."""
    import torch
    from pytorch_metric_learning import losses

    loss = losses.NTXentLoss(tau)(rows, labels)
    return loss.item(), torch.autograd.grad(loss, rows)[0].numpy()


def optax_nt_xent(rows: Any, labels: Any) -> tuple[float, Any]:
    """The value of optax, and its gradient by the rows, in float64."""
    import jax
    import optax

    with jax.enable_x64(True):
        value, grad = jax.value_and_grad(optax.losses.ntxent)(
            jax.numpy.asarray(rows.detach().numpy()), labels.numpy(), tau
        )
    return float(value), np.asarray(grad)


PAIR_MEANS = [metric_learning_nt_xent, optax_nt_xent]


def assert_pair_mean(ours: Any, inputs: list[Any], peer: Any, rows: Any, labels: Any) -> None:
    """Value and gradient; the inputs, one after the other, are the rows that the peer is given."""
    import torch

    value, grad = peer(rows, labels)
    assert_within(relative_error(ours.item(), value), 1e-9, "value")
    mine = torch.cat(torch.autograd.grad(ours, inputs)).numpy()
    assert_within(relative_error(mine, grad, float(np.abs(grad).max())), 1e-9, "gradient")


@pytest.mark.parametrize("peer", PAIR_MEANS)
def test_pair_means_of_views(peer: Any) -> None:
    import torch

    from ntxent.torch import nt_xent

    z1, z2, z3 = views(3)
    ours = nt_xent(z1, z2, temperature=tau, denominator="one_positive")
    assert_pair_mean(ours, [z1, z2], peer, torch.cat([z1, z2]), torch.arange(8).repeat(2))
    z = [z1, z2, z3]
    ours = nt_xent(*z, temperature=tau, denominator="one_positive")
    assert_pair_mean(ours, z, peer, torch.cat(z), torch.arange(8).repeat(3))


@pytest.mark.parametrize("peer", PAIR_MEANS)
def test_pair_means_of_classes_of_one_size(peer: Any) -> None:
    """The rows sorted by class are views of the classes."""
    import torch

    from ntxent.torch import nt_xent

    (rows,), V, d = views(1, 16), 4, 4
    labels = torch.tensor([3, 0, 1, 2, 2, 0, 0, 1, 3, 3, 2, 1, 0, 1, 2, 3])
    z = rows[labels.argsort()].reshape(-1, V, d).unbind(1)
    ours = nt_xent(*z, temperature=tau, denominator="one_positive")
    assert_pair_mean(ours, [rows], peer, rows, labels)


@pytest.mark.parametrize("peer", PAIR_MEANS)
def test_pair_means_of_classes_of_different_sizes(peer: Any) -> None:
    """The page's own function, which no mean over rows equals."""
    import torch

    from ntxent.torch import info_nce

    (code,) = (block for block in blocks(PAGE.read_text()) if "def pair_mean" in block)
    z1, z2 = views()
    labels = uneven_labels()
    names = {"torch": torch, "info_nce": info_nce, "tau": tau, "labels": labels}
    namespace: dict[str, Any] = {**names, "z1": z1, "z2": z2}
    exec(code, namespace)  # noqa: S102 the page is ours
    pair_mean = namespace["pair_mean"]
    ours = pair_mean(torch.cat([z1, z2]), labels)
    assert_pair_mean(ours, [z1, z2], peer, torch.cat([z1, z2]), labels)


def test_pytorch_metric_learning_sup_con() -> None:
    """Rows of a label of their own are left out of both means."""
    import torch
    from pytorch_metric_learning import losses

    from ntxent.torch import sup_con

    z1, z2 = views()
    labels = uneven_labels()
    ours = sup_con(torch.cat([z1, z2]), labels, temperature=tau)
    assert_same(ours, losses.SupConLoss(tau)(torch.cat([z1, z2]), labels), [z1, z2])
    none, rows = torch.zeros(16).long(), torch.cat([z1, z2])  # no negatives: the page's bracket
    assert losses.SupConLoss(tau)(rows, none).item() == 0
    assert sup_con(rows, none, temperature=tau).item() > 1


def test_lightly() -> None:
    """Its formula: each row's own similarity is dropped from the row, then cross-entropy."""
    import torch
    import torch.nn.functional as F

    from ntxent.torch import nt_xent

    z1, z2 = views()
    z = unit(torch.cat([z1, z2]))
    kept = ~torch.eye(16, dtype=torch.bool)
    logits = (z @ z.T / tau)[kept].reshape(16, 15)
    target = torch.cat([torch.arange(8) + 7, torch.arange(8)])
    ours = nt_xent(z1, z2, temperature=tau)
    assert_same(ours, F.cross_entropy(logits, target), [z1, z2])


def test_those_that_have_the_same_number() -> None:
    """A wrapper of pytorch-metric-learning, and the formulas of the others the page names there."""
    import torch
    import torch.nn.functional as F
    from pytorch_metric_learning import losses

    from ntxent.torch import nt_xent

    z1, z2 = views()
    ours = nt_xent(z1, z2, temperature=tau)
    theirs = losses.SelfSupervisedLoss(losses.NTXentLoss(tau))(z1, z2)
    assert_same(ours, theirs, [z1, z2])
    z, numbers = unit(torch.cat([z1, z2])), torch.arange(8).repeat(2)
    same = numbers[:, None] == numbers
    positive = same & ~torch.eye(16, dtype=torch.bool)
    similar = z @ z.T / tau  # the positive first, then the negatives: Spijkervet's and sthalles'
    logits = torch.cat([similar[positive][:, None], similar[~same].reshape(16, 14)], 1)
    assert_same(ours, F.cross_entropy(logits, torch.zeros(16).long()), [z1, z2])
    near, far = ((similar.exp() * mask).sum(1) for mask in (positive, ~same))  # solo-learn's
    assert_same(ours, -(near / (near + far)).log().mean(), [z1, z2])


def test_decoupled() -> None:
    """Its formula: minus the positive, plus the logarithm of all negatives; both views' means."""
    import torch

    from ntxent.torch import nt_xent

    z1, z2 = views()
    own = torch.eye(8, dtype=torch.bool)
    terms, lightly = [], []
    for a, b in ((unit(z1), unit(z2)), (unit(z2), unit(z1))):
        within, across = ((x / tau).masked_fill(own, -torch.inf) for x in (a @ a.T, a @ b.T))
        positive = (a * b).sum(1) / tau
        terms.append((torch.cat([within, across], 1).logsumexp(1) - positive).mean())
        lightly.append((within.logsumexp(1) + across.logsumexp(1) - positive).mean())
    rows1, rows2 = (unit(z) for z in (z1, z2))
    ours = 2 * nt_xent(rows1, rows2, temperature=tau, denominator="negatives")
    assert_same(ours, terms[0] + terms[1], [z1, z2])
    assert relative_error(sum(lightly).item(), ours.item()) > 0.1  # another loss, as the page says


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


def test_info_nce_pytorch() -> None:
    import info_nce as package
    import torch

    from ntxent.torch import info_nce

    z1, z2 = views()
    ours = info_nce(z1, z2, temperature=tau)
    assert_same(ours, package.info_nce(z1, z2, temperature=tau), [z1, z2])

    queue = constants(32, 4).requires_grad_()
    only = torch.cat([torch.zeros(len(z1)), torch.ones(len(queue))]).long()
    ours = info_nce(z1, z2, queue, temperature=tau, ids=only)
    theirs = package.info_nce(z1, z2, queue, temperature=tau, negative_mode="unpaired")
    assert_same(ours, theirs, [z1, z2, queue])
    with_the_batch = info_nce(z1, z2, queue, temperature=tau)
    assert relative_error(with_the_batch.item(), theirs.item()) > 0.01

    own = constants(8, 5, 4).requires_grad_()
    ours = info_nce(z1, z2, own, temperature=tau, ids=torch.zeros(len(z1)).long())
    theirs = package.info_nce(z1, z2, own, temperature=tau, negative_mode="paired")
    assert_same(ours, theirs, [z1, z2, own])


def test_moco() -> None:
    """Its formula: one positive logit, then those of the queue."""
    import torch
    import torch.nn.functional as F

    from ntxent.torch import info_nce

    (z1,), z2, queue = views(1), constants(8, 4), constants(32, 4)  # keys get no gradient
    q, k, n = unit(z1), unit(z2), unit(queue)
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ n.T], 1) / tau
    only = torch.cat([torch.zeros(len(z1)), torch.ones(len(queue))]).long()
    ours = info_nce(z1, z2, queue, temperature=tau, ids=only)
    assert_same(ours, F.cross_entropy(logits, torch.zeros(8).long()), [z1])


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
    ours = info_nce(image, text, temperature=1 / logit_scale, symmetric=True)
    assert_same(ours, theirs, [z1, z2, logit_scale])
    (grad,) = torch.autograd.grad(ours, image, retain_graph=True)
    assert (grad * image).sum(1).abs().max() < 1e-12  # no radial part, as the page says
    ours = info_nce(image, text, temperature=1 / logit_scale, symmetric=True, normalize=False)
    assert_same(ours, theirs, [z1, z2, logit_scale, image, text])


def test_sentence_transformers() -> None:
    """Its formula: anchors against all positives, then all hard negatives."""
    import torch
    import torch.nn.functional as F

    from ntxent.torch import info_nce

    z1, z2 = views()
    queue, scale = constants(16, 4).requires_grad_(), 20.0
    candidates = unit(torch.cat([z2, queue]))
    theirs = F.cross_entropy(unit(z1) @ candidates.T * scale, torch.arange(8))
    ours = info_nce(z1, z2, queue, temperature=1 / scale)
    assert_same(ours, theirs, [z1, z2, queue])
    theirs = F.cross_entropy(unit(z1) @ unit(z2).T * scale, torch.arange(8))
    assert_same(info_nce(z1, z2, temperature=1 / scale), theirs, [z1, z2])


def test_three_views_tell_the_denominators_apart() -> None:
    """Each is the loops', and that of the peer which defines it so."""
    import torch
    from pytorch_metric_learning import losses

    from ntxent.torch import nt_xent

    z = views(3)
    numbers = torch.arange(8).repeat(3)
    theirs = {
        "all": losses.SupConLoss(tau)(torch.cat(z), numbers),
        "one_positive": losses.NTXentLoss(tau)(torch.cat(z), numbers),
        "negatives": None,
    }
    found = {}
    for name, other in theirs.items():
        value = nt_xent(*z, temperature=tau, denominator=name)
        found[name] = value.item()
        rows = [x.detach().numpy() for x in z]
        expected = reference.nt_xent(*rows, temperature=tau, denominator=name)
        assert_within(relative_error(found[name], expected), 1e-12, name)
        if other is not None:
            assert_same(value, other, z)
    values = sorted(found.values())
    assert values[1] - values[0] > 0.01
    assert values[2] - values[1] > 0.01


TESTED = [  # the sections of the page, in its order, and their tests
    ("SupContrast", [test_supcontrast, test_supcontrast_counts_rows_without_a_positive]),
    ("SupCon", [test_google_research_sup_con]),
    ("SimCLR", [test_the_authors_simclr]),
    (
        "pytorch-metric-learning",
        [test_pair_means_of_views, test_pair_means_of_classes_of_different_sizes],
    ),
    ("pytorch-metric-learning", [test_pytorch_metric_learning_sup_con]),
    ("lightly", [test_lightly, test_those_that_have_the_same_number]),
    ("Decoupled contrastive learning", [test_decoupled]),
    ("info-nce-pytorch", [test_info_nce_pytorch]),
    ("MoCo", [test_moco]),
    ("CLIP", [test_clip]),
    ("sentence-transformers", [test_sentence_transformers]),
]


def test_the_lines_of_the_page_are_those_that_are_tested() -> None:
    """Every `loss = ...` of a section is an `ours = ...` of its tests, word for word."""
    sections = re.split(r"^\*\*", PAGE.read_text(), flags=re.MULTILINE)[1:]
    for section, (name, tests) in zip(sections, TESTED, strict=True):
        assert section.startswith(f"{name}**")
        written = losses_in("".join(blocks(section)))
        assert written or name == "MoCo"  # which refers to the section before it
        assert written <= losses_in("".join(map(inspect.getsource, tests)))
