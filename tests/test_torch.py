"""What PyTorch's users expect beyond the shared suite."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest

from _torch_losses import IMPLEMENTATIONS, chosen

pytestmark = pytest.mark.only("torch")


@pytest.fixture
def torch() -> Any:
    import torch

    torch.manual_seed(0)
    return torch


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request: Any, monkeypatch: Any) -> str:
    return chosen(request.param, monkeypatch)


def views_of(torch: Any, count: int, images: int = 5, dim: int = 3) -> list[Any]:
    return [torch.randn(images, dim, dtype=torch.float64, requires_grad=True) for _ in range(count)]


FORMULAS = list(itertools.product(["all", "one_positive", "negatives"], [2, 3]))


@pytest.mark.covering  # each takes seconds
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("formula", FORMULAS, ids=str)
def test_first_and_second_derivatives(
    torch: Any, implementation: str, formula: tuple[str, int], normalize: bool, every: bool
) -> None:
    """gradcheck and gradgradcheck, the temperature among the inputs."""
    from ntxent.torch import nt_xent

    denominator, count = formula
    options = {"denominator": denominator, "normalize": normalize, "implementation": implementation}
    tau = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def fn(tau: Any, *views: Any) -> Any:
        return nt_xent(*views, temperature=tau, **options)

    inputs = (tau, *views_of(torch, count, dim=3 if every else 2))
    assert torch.autograd.gradcheck(fn, inputs)
    assert torch.autograd.gradgradcheck(fn, inputs)


def test_second_derivatives_are_those_of_dense(torch: Any, implementation: str) -> None:
    """Hessian-vector products and their own derivative, with a zero row in the batch."""
    from ntxent.torch import nt_xent

    z1, z2 = views_of(torch, 2)
    with torch.no_grad():
        z1[2] = 0
    direction = torch.randn_like(z1)

    def third(name: str) -> tuple[Any, ...]:
        loss = nt_xent(z1, z2, temperature=0.2, implementation=name)
        (first,) = torch.autograd.grad(loss, z1, create_graph=True)
        (second,) = torch.autograd.grad((first * direction).sum(), z1, create_graph=True)
        return first, second, *torch.autograd.grad((second * direction).sum(), (z1, z2))

    for got, expected in zip(third(implementation), third("dense"), strict=True):
        assert got.isfinite().all()
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_only_one_input_needs_a_gradient(torch: Any, implementation: str) -> None:
    from ntxent.torch import nt_xent

    z1, z2 = views_of(torch, 2)
    tau = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    everything = torch.autograd.grad(
        nt_xent(z1, z2, temperature=tau, implementation=implementation), (z1, z2, tau)
    )
    for place in range(3):
        inputs = [x.detach().clone() for x in (z1, z2, tau)]
        inputs[place].requires_grad_()
        nt_xent(*inputs[:2], temperature=inputs[2], implementation=implementation).backward()
        torch.testing.assert_close(inputs[place].grad, everything[place])
        assert [x.grad is None for x in inputs].count(True) == 2


def test_kept_and_recomputed_tiles_give_the_same_bits(torch: Any, monkeypatch: Any) -> None:
    from ntxent.torch import nt_xent
    from ntxent.torch._pairs import tiled

    monkeypatch.setattr(tiled, "TILE", 16)
    z1, z2 = views_of(torch, 2, images=50, dim=7)
    found = []
    for kept in (0, 5, 1000):
        monkeypatch.setattr(tiled, "KEEP_BYTES", kept * 16 * 16 * 8)
        for temperature in (0.5, 0.001):
            loss = nt_xent(z1, z2, temperature=temperature)
            found.append((loss, *torch.autograd.grad(loss, (z1, z2))))
    for kept_run in (found[2:4], found[4:]):
        for got, expected in zip(kept_run, found[:2], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_backward_twice_on_a_retained_graph(torch: Any, implementation: str) -> None:
    from ntxent.torch import nt_xent

    z1, z2 = views_of(torch, 2)
    loss = nt_xent(z1, z2, implementation=implementation)
    first, second = (torch.autograd.grad(loss, (z1, z2), retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_no_grad_and_inference_mode_and_parameters(torch: Any, implementation: str) -> None:
    from ntxent.torch import nt_xent

    z1, z2 = (torch.nn.Parameter(z.detach()) for z in views_of(torch, 2))
    expected = nt_xent(z1, z2, implementation=implementation)
    assert expected.requires_grad
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            loss = nt_xent(z1, z2, implementation=implementation)
        assert not loss.requires_grad
        torch.testing.assert_close(loss, expected.detach())


@pytest.mark.parametrize("kind", ["same", "made from the other", "temperature made from it"])
def test_inputs_that_depend_on_each_other(torch: Any, implementation: str, kind: str) -> None:
    """First to third order, against autograd through the dense form."""
    from ntxent.torch import nt_xent

    z = views_of(torch, 1)[0]

    def orders(name: str) -> list[Any]:
        other = z.tanh() + 0.1 if kind == "made from the other" else z
        tau = z.square().mean() + 0.1 if kind.startswith("temperature") else 0.2
        found = [nt_xent(z, other, z, temperature=tau, implementation=name)]
        for _ in range(3):
            (grad,) = torch.autograd.grad(found[-1].square().sum(), z, create_graph=True)
            found.append(grad)
        return found

    for got, expected in zip(orders(implementation), orders("dense"), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("count", [2, 3])
def test_a_batch_without_negatives_has_all_its_derivatives(
    torch: Any, implementation: str, count: int
) -> None:
    from ntxent.torch import nt_xent

    views = views_of(torch, count, images=1)
    loss = nt_xent(*views, implementation=implementation)
    (first,) = torch.autograd.grad(loss, views[0], create_graph=True)
    second = torch.autograd.grad(first.square().sum(), views, allow_unused=True)
    assert all(grad is None or grad.isfinite().all() for grad in second)
    if count == 2:
        assert loss == 0
        assert not first.any()


@pytest.mark.parametrize("view_dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("autocast", ["bfloat16", "float16"])
def test_autocast_on_a_cpu_changes_nothing(
    torch: Any, implementation: str, view_dtype: str, autocast: str
) -> None:
    """Similarities, sums and gradients are what they are outside of it."""
    from ntxent.torch import nt_xent

    views = [z.detach().to(getattr(torch, view_dtype)).requires_grad_() for z in views_of(torch, 2)]
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", getattr(torch, autocast), enabled=enabled):
            loss = nt_xent(*views, implementation=implementation)
            with torch.no_grad():
                assert torch.equal(nt_xent(*views, implementation=implementation), loss)
        # outside, as PyTorch advises: autograd's own backward passes would be cast in there
        found.append((loss, *torch.autograd.grad(loss, views)))
    assert found[0][0].dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_gradient_hook_and_an_offload_hook_see_it(torch: Any) -> None:
    from ntxent.torch import nt_xent

    z1, z2 = views_of(torch, 2)
    packed: list[int] = []
    hooks = torch.autograd.graph.saved_tensors_hooks(
        lambda x: packed.append(x.numel()) or x.clone(), lambda x: x
    )
    for reduction, largest in (("mean", 2 * z1.numel()), ("none", 10 * 10)):
        packed.clear()
        with hooks:
            loss = nt_xent(z1, z2, reduction=reduction).sum()
        assert max(packed) == largest  # the gradients of both views, or the tile
        grads = torch.autograd.grad(loss, (z1, z2))
        expected = torch.autograd.grad(nt_xent(z1, z2, reduction=reduction).sum(), (z1, z2))
        assert all(torch.equal(a, b) for a, b in zip(grads, expected, strict=True))


def test_the_module_is_the_function(torch: Any) -> None:
    from ntxent.torch import NTXentLoss, nt_xent

    z1, z2 = views_of(torch, 2)
    module = NTXentLoss(temperature=0.3, denominator="negatives", reduction="sum")
    expected = nt_xent(z1, z2, temperature=0.3, denominator="negatives", reduction="sum")
    assert torch.equal(module(z1, z2), expected)
    assert not list(module.parameters())
    assert not module.state_dict()
    assert "temperature=0.3" in repr(module)
    ids = torch.tensor([0, 0, 1, 1, 2])
    expected = nt_xent(z1, z2, temperature=0.3, denominator="negatives", reduction="sum", ids=ids)
    assert torch.equal(module(z1, z2, ids=ids), expected)


def test_a_learned_temperature_is_trained_saved_and_loaded(torch: Any) -> None:
    from ntxent.torch import NTXentLoss

    z1, z2 = (z.detach().float() for z in views_of(torch, 2))
    module = NTXentLoss(temperature=0.3, learn_temperature=True)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = module(z1, z2)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert module.temperature.item() != pytest.approx(0.3)
    other = NTXentLoss(learn_temperature=True)
    other.load_state_dict(copy.deepcopy(module.state_dict()))
    assert torch.equal(other(z1, z2), module(z1, z2))
    assert "learned" in repr(module)


@pytest.mark.parametrize(
    "bad",
    [{"temperature": -1.0}, {"denominator": "x"}, {"reduction": "x"}, {"implementation": "x"}],
)
def test_the_module_refuses_at_construction(bad: dict[str, Any]) -> None:
    from ntxent.torch import NTXentLoss

    with pytest.raises(ValueError, match=r"must be"):
        NTXentLoss(**bad)


def test_a_learned_temperature_has_the_gradient_of_finite_differences(
    torch: Any, implementation: str
) -> None:
    from ntxent.torch import nt_xent

    z1, z2 = (z.detach() for z in views_of(torch, 2))
    tau = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    nt_xent(z1, z2, temperature=tau, implementation=implementation).backward()
    up, down = (nt_xent(z1, z2, temperature=0.2 + e).item() for e in (1e-6, -1e-6))
    np.testing.assert_allclose(tau.grad.item(), (up - down) / 2e-6, rtol=1e-7)


def test_the_module_refuses_a_tensor_for_its_temperature(torch: Any) -> None:
    from ntxent.torch import NTXentLoss

    with pytest.raises(TypeError, match=r"a number here.*learn_temperature"):
        NTXentLoss(temperature=torch.tensor(0.1))


def test_a_temperature_on_another_device_is_refused(torch: Any) -> None:
    from ntxent.torch import nt_xent

    z = views_of(torch, 1)[0]
    with pytest.raises(ValueError, match=r"temperature must be on the device.*cpu.*meta"):
        nt_xent(z, z, temperature=torch.tensor(0.1, device="meta"))


def test_ids_are_those_of_the_call(torch: Any, implementation: str) -> None:
    """A buffer of ids that is filled anew before the backward pass changes no gradient."""
    from ntxent.torch import info_nce

    q, k = views_of(torch, 2, images=8)
    ids = torch.arange(8) // 2
    found = []
    for filled in (False, True):
        loss = info_nce(q, k, ids=ids, reduction="none", implementation=implementation).sum()
        if filled:
            ids.zero_()
        found.append(torch.autograd.grad(loss, (q, k)))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
