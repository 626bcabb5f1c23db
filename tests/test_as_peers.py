"""Losses written as other packages have them are those packages', option by option."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

import _peers
from _as_peers import InfoNCE, Lightly, MetricLearning, Optax, SoloLearn, SupCon
from _lines import assert_same, constants, four_labels, uneven_labels, unit, views
from _tolerances import assert_within, relative_error

pytestmark = [pytest.mark.only("torch"), pytest.mark.extras]
TAUS = [0.07, 0.5, 1.0]


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("images", [2, 8])
def test_lightly(tau: float, images: int) -> None:
    z = views(2, images)
    nt_xent, dcl = _peers.lightly("ntx_ent_loss").NTXentLoss, _peers.lightly("dcl_loss").DCLLoss
    assert_same(Lightly.nt_xent(*z, temperature=tau), nt_xent(tau)(*z), z)
    assert_same(Lightly.dcl(*z, temperature=tau), dcl(tau)(*z), z)
    with_bank = nt_xent(tau, memory_bank_size=(20, 4))
    with_bank.memory_bank.bank = unit(with_bank.memory_bank.bank.double())
    for _ in range(3):  # it goes round
        bank = with_bank.memory_bank.bank.clone()
        ours = Lightly.nt_xent(*z, temperature=tau, bank=bank)
        assert_same(ours, with_bank(*z), z)


def test_lightly_has_its_defaults() -> None:
    z = views()
    assert_same(Lightly.nt_xent(*z), _peers.lightly("ntx_ent_loss").NTXentLoss()(*z), z)
    assert_same(Lightly.dcl(*z), _peers.lightly("dcl_loss").DCLLoss()(*z), z)


def triplets(labels: Any) -> tuple[Any, ...]:
    """Anchors and positives, anchors and negatives, a part of them, as a miner gives them."""
    import torch

    same = labels[:, None] == labels
    pairs = (same & ~torch.eye(len(labels), dtype=torch.bool)).nonzero()[::2].unbind(1)
    return *pairs, *(~same).nonzero()[::3].unbind(1)


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("labels", [four_labels, uneven_labels])
def test_pytorch_metric_learning(tau: float, labels: Callable[[], Any]) -> None:
    """By labels, by a miner's indices, against references."""
    import torch
    from pytorch_metric_learning import losses

    (rows,), given = views(1, 16), labels()
    theirs = losses.NTXentLoss(tau)
    ours = MetricLearning.nt_xent(rows, given, temperature=tau)
    assert_same(ours, theirs(rows, given), [rows])
    indices = triplets(given)
    ours = MetricLearning.nt_xent(rows, indices_tuple=indices, temperature=tau)
    assert_same(ours, theirs(rows, indices_tuple=indices), [rows])
    refs, numbers = constants(12, 4).requires_grad_(), torch.arange(12) % 5
    more = {"ref_emb": refs, "ref_labels": numbers}
    ours = MetricLearning.nt_xent(rows, given, temperature=tau, **more)
    assert_same(ours, theirs(rows, given, **more), [rows, refs])
    theirs = losses.SupConLoss(tau)
    ours = MetricLearning.sup_con(rows, given, temperature=tau)
    assert_same(ours, theirs(rows, given), [rows])
    ours = MetricLearning.sup_con(rows, given, temperature=tau, **more)
    assert_same(ours, theirs(rows, given, **more), [rows, refs])


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_info_nce_pytorch(tau: float, reduction: str) -> None:
    import info_nce as package
    import torch

    z = views()
    weights = torch.linspace(1, 2, 8)
    for more, mode in [
        ((), "unpaired"),
        ((constants(32, 4).requires_grad_(),), "unpaired"),
        ((constants(8, 5, 4).requires_grad_(),), "paired"),
    ]:
        options: dict[str, Any] = {"temperature": tau, "reduction": reduction}
        ours, theirs = (
            (function(*z, *more, negative_mode=mode, **options) * weights).sum()
            for function in (InfoNCE.info_nce, package.info_nce)
        )
        assert_same(ours, theirs, [*z, *more])


@pytest.mark.parametrize("tau", TAUS)
def test_solo_learn(tau: float) -> None:
    import torch

    z, simclr = views(), _peers.solo_learn("simclr")
    ours = SoloLearn.simclr_loss_func(*z, temperature=tau)
    assert_same(ours, simclr.simclr_loss_func(*z, temperature=tau), z)
    random = torch.rand(16, 16, generator=torch.Generator().manual_seed(0))
    masks = [random < 0.2, random > 0.5]  # of any kind; some rows without a positive
    masks[0][3] = False
    ours = SoloLearn.manual_simclr_loss_func(torch.cat(z), *masks, temperature=tau)
    assert_same(ours, simclr.manual_simclr_loss_func(torch.cat(z), *masks, temperature=tau), z)
    queue = constants(4, 32)
    ours = SoloLearn.moco_loss_func(*z, queue, temperature=tau)
    theirs = _peers.solo_learn("moco").moco_loss_func(*z, queue, temperature=tau)
    assert_same(ours, theirs, z)
    ours = SoloLearn.nnclr_loss_func(*z, temperature=tau)
    assert_same(ours, _peers.solo_learn("nnclr").nnclr_loss_func(*z, temperature=tau), z)


def test_optax() -> None:
    """Under jit, labels and all."""
    import jax
    import optax

    (rows,) = views(1, 16)
    functions = [jax.jit(jax.value_and_grad(loss)) for loss in (Optax.ntxent, optax.losses.ntxent)]
    for labels, tau in product([four_labels().numpy(), uneven_labels().numpy()], TAUS):
        with jax.enable_x64(True):
            given = jax.numpy.asarray(rows.detach().numpy()), labels, tau
            (ours, grad), (theirs, expected) = (function(*given) for function in functions)
        assert_within(relative_error(float(ours), float(theirs)), 1e-9, "value")
        scale = float(np.abs(expected).max())
        error = relative_error(np.asarray(grad), np.asarray(expected), scale)
        assert_within(error, 1e-9, "gradient")


def contrastive_loss(features: Any, labels: Any, temperature: float, denominator: str) -> Any:
    """What google-research's supcon says it computes, as loops: no package of it is published."""
    import torch

    images, views = features.shape[:2]
    rows, kinds = torch.cat(features.unbind(1)), labels.argmax(1).repeat(views)
    numbers, found = range(len(rows)), []
    for i in numbers:
        e = [(rows[i] @ rows[k] / temperature).exp() for k in numbers]
        positives = [k for k in numbers if k != i and kinds[k] == kinds[i]]
        negatives = sum(e[k] for k in numbers if kinds[k] != kinds[i])
        everything = negatives + sum(e[p] for p in positives)
        below = {"ALL": everything, "ONLY_NEGATIVES": negatives}
        terms = [(e[p] / below.get(denominator, negatives + e[p])).log() for p in positives]
        found.append(-sum(terms) / len(positives))
    return torch.stack(found).reshape(views, images)


@pytest.mark.parametrize(
    ("denominator", "labelled"),
    [
        *[(name, False) for name in ("ALL", "ONE_POSITIVE", "ONLY_NEGATIVES")],
        *[(name, True) for name in ("ALL", "ONE_POSITIVE")],  # which `sup_con` and a loop give
    ],
)
@pytest.mark.parametrize("contrast_mode", ["ALL_VIEWS", "ONE_VIEW"])
@pytest.mark.parametrize("scale", [True, False])
def test_google_research(denominator: str, labelled: bool, contrast_mode: str, scale: bool) -> None:
    import torch

    z, tau = views(3), 0.5
    features = torch.stack([unit(view) for view in z], 1)
    one_hot = torch.eye(8)[torch.arange(8) // 3] if labelled else torch.eye(8)
    rows = contrastive_loss(features, one_hot, tau, denominator) * (tau if scale else 1)
    theirs = rows[0] if contrast_mode == "ONE_VIEW" else rows.mean(0)
    options: dict[str, Any] = {
        "temperature": tau,
        "contrast_mode": contrast_mode,
        "denominator_mode": denominator,
        "scale_by_temperature": scale,
    }
    ours = SupCon.contrastive_loss(features, one_hot if labelled else None, **options)
    assert ours.shape == (8,)
    weights = torch.linspace(1, 2, 8)
    assert_same((ours * weights).sum(), (theirs * weights).sum(), z)


def weighted_dcl(rows: Any, labels: Any) -> Any:
    def weights(a: Any, b: Any) -> Any:
        return 1 + (a * b).sum(1).detach()

    return _peers.lightly("dcl_loss").DCLLoss(1.0, weight_fn=weights)(rows[:8], rows[8:])


def distances(rows: Any, labels: Any) -> Any:
    from pytorch_metric_learning import distances, losses

    return losses.SupConLoss(1.0, distance=distances.LpDistance())(rows, labels)


def one_class(rows: Any, labels: Any) -> Any:
    from pytorch_metric_learning import losses

    return losses.SupConLoss(1.0)(rows, labels * 0)


def ranking(**options: Any) -> Callable[[Any, Any], Any]:
    def loss(rows: Any, labels: Any) -> Any:
        make = _peers.sentence_transformers().MultipleNegativesRankingLoss
        return make(None, scale=1.0, **options).compute_loss_from_embeddings(rows.split(8), None)

    return loss


def inside(rows: Any, labels: Any) -> Any:
    """google-research's `summation_location=INSIDE`, which solo-learn's repository has as well."""
    import torch

    z = unit(rows)
    same, e = labels[:, None] == labels, (z @ z.T).exp()
    positive = (e * (same & ~torch.eye(16, dtype=torch.bool))).sum(1)
    return (positive / (positive + (e * ~same).sum(1))).log().neg().mean()


def nearest(name: str) -> Callable[[Any, Any], Any]:
    """What comes nearest to it of ours, with a temperature of 1."""
    from ntxent.torch import info_nce, nt_xent, sup_con

    return {
        "dcl": lambda rows, _: nt_xent(*rows.split(8), temperature=1, denominator="negatives"),
        "sup_con": lambda rows, labels: sup_con(rows, labels, temperature=1),
        "one class": lambda rows, labels: sup_con(rows, labels * 0, temperature=1),
        "info_nce": lambda rows, _: info_nce(*rows.split(8), temperature=1),
        "all": lambda rows, _: nt_xent(*rows.split(8), temperature=1),
    }[name]


SAME_TYPE = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
NOT_OURS = {  # options that no loss of ours has, and what comes nearest
    "lightly: weight_fn": (weighted_dcl, "dcl"),
    "pytorch-metric-learning: distance=LpDistance()": (distances, "sup_con"),
    "pytorch-metric-learning: 0 where there is no negative": (one_class, "one class"),
    "sentence-transformers: one softmax over several directions": (
        ranking(directions=SAME_TYPE),
        "all",
    ),
    "sentence-transformers: hardness_mode": (
        ranking(hardness_mode="in_batch_negatives", hardness_strength=5.0),
        "info_nce",
    ),
    "google-research, solo-learn: sums inside the logarithm": (inside, "sup_con"),
}


@pytest.mark.parametrize("name", NOT_OURS)
def test_what_is_not_ours_is_another_number(name: str) -> None:
    """So that nothing stays on the list that could be written with ours."""
    (rows,), (theirs, near) = views(1, 16), NOT_OURS[name]
    ours = nearest(near)(rows, four_labels()).item()
    assert relative_error(theirs(rows, four_labels()).item(), ours) > 1e-3


def test_a_package_that_is_missing_is_named() -> None:
    with pytest.raises(ImportError, match="pip install --no-deps no_such_package"):
        _peers.alone("no_such_package.losses.one")
