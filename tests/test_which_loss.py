"""The lines of docs/which-loss.md, each against the package that it stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import _peers
from _lines import PAGE, assert_same, blocks, constants, tau, uneven_labels, unit, views
from _tolerances import assert_within, relative_error
from ntxent import reference

pytestmark = [pytest.mark.only("torch"), pytest.mark.extras]


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
    """NT-Xent; with a memory bank, the negatives of the bank alone."""
    import torch

    from ntxent.torch import info_nce, nt_xent

    z1, z2 = views()
    ours = nt_xent(z1, z2, temperature=tau)
    module = _peers.lightly("ntx_ent_loss").NTXentLoss
    assert_same(ours, module(temperature=tau)(z1, z2), [z1, z2])

    with_bank = module(temperature=tau, memory_bank_size=(32, 4))
    with_bank.memory_bank.bank = unit(with_bank.memory_bank.bank.double())
    queue = with_bank.memory_bank.bank.clone()
    only = torch.cat([torch.zeros(len(z1)), torch.ones(len(queue))]).long()
    ours = info_nce(z1, z2, queue, temperature=tau, ids=only)
    assert_same(ours, with_bank(z1, z2), [z1, z2])


def test_lightly_decoupled() -> None:
    """Its weighted form isn't, as the page says."""
    from ntxent.torch import nt_xent

    def weights(a: Any, b: Any) -> Any:
        return 1 + (a * b).sum(1).detach()

    z1, z2 = views()
    ours = nt_xent(z1, z2, temperature=tau, denominator="negatives")
    module = _peers.lightly("dcl_loss").DCLLoss
    assert_same(ours, module(temperature=tau)(z1, z2), [z1, z2])
    weighted = module(temperature=tau, weight_fn=weights)(z1, z2)
    assert relative_error(weighted.item(), ours.item()) > 0.01


def test_those_that_have_the_same_number() -> None:
    """A wrapper of pytorch-metric-learning, Spijkervet's SimCLR and solo-learn's."""
    from pytorch_metric_learning import losses

    from ntxent.torch import nt_xent

    z1, z2 = views()
    ours = nt_xent(z1, z2, temperature=tau)
    theirs = losses.SelfSupervisedLoss(losses.NTXentLoss(tau))(z1, z2)
    assert_same(ours, theirs, [z1, z2])
    spijkervet = _peers.alone("simclr.modules.nt_xent").NT_Xent(len(z1), tau, 1)
    assert_same(ours, spijkervet(z1, z2), [z1, z2])
    solo_learn = _peers.solo_learn("simclr").simclr_loss_func
    assert_same(ours, solo_learn(z1, z2, temperature=tau), [z1, z2])


def test_keras_cv(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under Keras' PyTorch backend, in float32."""
    from ntxent.torch import nt_xent

    monkeypatch.setenv("KERAS_BACKEND", "torch")
    z1, z2 = views()
    ours = 2 * nt_xent(z1, z2, temperature=tau)
    assert_same(ours, _peers.keras_cv().SimCLRLoss(tau)(z1, z2), [z1, z2], bound=2e-6)


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


def test_clip() -> None:
    """open_clip's, of features of unit length."""
    import torch

    from ntxent.torch import info_nce

    z1, z2 = views()
    image, text = unit(z1), unit(z2)
    logit_scale = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    theirs = _peers.alone("open_clip.loss").ClipLoss()(image, text, logit_scale)
    ours = info_nce(image, text, temperature=1 / logit_scale, symmetric=True)
    assert_same(ours, theirs, [z1, z2, logit_scale])
    (grad,) = torch.autograd.grad(ours, image, retain_graph=True)
    assert (grad * image).sum(1).abs().max() < 1e-12  # no radial part, as the page says
    ours = info_nce(image, text, temperature=1 / logit_scale, symmetric=True, normalize=False)
    assert_same(ours, theirs, [z1, z2, logit_scale, image, text])


def test_sentence_transformers() -> None:
    """From embeddings: anchors against all positives, then all hard negatives; both directions."""
    from ntxent.torch import info_nce

    z1, z2 = views()
    queue, scale = constants(8, 4).requires_grad_(), 20.0
    make = _peers.sentence_transformers().MultipleNegativesRankingLoss
    loss = make(None, scale=scale).compute_loss_from_embeddings
    ours = info_nce(z1, z2, queue, temperature=1 / scale)
    assert_same(ours, loss([z1, z2, queue], None), [z1, z2, queue])
    assert_same(info_nce(z1, z2, temperature=1 / scale), loss([z1, z2], None), [z1, z2])

    both = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
    loss = make(None, scale=scale, **both).compute_loss_from_embeddings
    ours = info_nce(z1, z2, queue, temperature=1 / scale, symmetric=True)
    assert_same(ours, loss([z1, z2, queue], None), [z1, z2, queue])


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
