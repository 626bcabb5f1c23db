"""Inputs that are changed between the loss and its backward pass, and inputs of inference mode.

A queue is pushed to right after the loss, prototypes are renormalised. The gradient is that of the
values which the loss was given, and no second derivative is ever one of other values.
"""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from _torch_losses import LOSSES, change, given, leaves_of, loss_of

pytestmark = pytest.mark.only("torch")

DTYPES = ("float64", "float32", "bfloat16")


@pytest.fixture
def torch() -> Any:
    import torch

    torch.manual_seed(0)
    return torch


@pytest.fixture(params=["dense", "tiled", "tiles of 4", "tiles of 4, kept"])
def implementation(request: Any, monkeypatch: Any) -> str:
    from ntxent.torch import _tiled

    if request.param.startswith("tiles"):
        monkeypatch.setattr(_tiled, "TILE", 4)
        kept = 2 * 4 * 4 * 8 if request.param.endswith("kept") else 0
        monkeypatch.setattr(_tiled, "KEEP_BYTES", kept)
        return "tiled"
    return str(request.param)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LOSSES)
def test_what_is_changed_after_the_loss_changes_no_gradient(
    torch: Any, implementation: str, name: str, dtype: str, reduction: str
) -> None:
    """Every input at once: rows, temperature, ids or labels."""
    options = {"implementation": implementation, "reduction": reduction}
    found = []
    for changed in (False, True):
        inputs = given(torch, name, dtype)
        loss = loss_of(name, inputs, **options)
        leaves = leaves_of(inputs)
        if changed:
            change(torch, *inputs.values())
        found.append(torch.autograd.grad(loss, leaves, torch.ones_like(loss).mul(0.7)))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert all(grad.any() for grad in found[0])


@pytest.mark.parametrize("name", LOSSES)
def test_a_second_derivative_is_right_or_refused(
    torch: Any, implementation: str, name: str
) -> None:
    """After each input is changed; "dense" needs none of them again, and nothing needs ids."""

    def second(changed: str | None) -> list[Any]:
        inputs = given(torch, name)
        loss = loss_of(name, inputs, implementation=implementation)
        leaves = leaves_of(inputs)
        if changed is not None:
            change(torch, inputs[changed])
        first = torch.autograd.grad(loss, leaves, create_graph=True)
        # times constants of its own, so that nothing else here has saved what was changed
        total = sum(
            (grad * torch.linspace(1, 2, grad.numel()).view_as(grad)).sum() for grad in first
        )
        return [x.detach() for x in (*first, *torch.autograd.grad(total, leaves))]

    expected = second(None)
    for changed, x in given(torch, name).items():
        if implementation == "tiled" and x.is_floating_point():
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                second(changed)
        else:
            found = second(changed)
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), changed


def test_first_derivatives_of_a_retained_graph_stay_and_second_ones_are_refused(torch: Any) -> None:
    inputs = given(torch, "info_nce, queue")
    loss, leaves = loss_of("info_nce, queue", inputs), leaves_of(inputs)
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    change(torch, inputs["negatives"])
    again = torch.autograd.grad(loss, leaves, retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, leaves, create_graph=True)
    torch.autograd.grad(loss, leaves)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(loss, leaves)


def test_one_queue_serves_two_losses_of_one_graph(torch: Any, implementation: str) -> None:
    """It is filled anew between them, and after both."""
    from ntxent.torch import info_nce

    query = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    keys, fills = torch.randn(2, 6, 3).double(), torch.randn(2, 5, 3).double()
    expected = sum(
        torch.autograd.grad(info_nce(query.exp(), key, fill), query)[0]
        for key, fill in zip(keys, fills, strict=True)
    )
    queue, views = torch.empty(5, 3, dtype=torch.float64), query.exp()
    total = torch.zeros((), dtype=torch.float64)
    for key, fill in zip(keys, fills, strict=True):
        queue.copy_(fill)
        total = total + info_nce(views, key, queue, implementation=implementation)
    queue.zero_()
    total.backward()
    torch.testing.assert_close(query.grad, expected, rtol=1e-12, atol=1e-14)


def test_a_view_that_is_changed_as_a_part_of_the_graph(torch: Any, implementation: str) -> None:
    """What comes before it gets the gradient of the loss, and of what it is changed to later."""
    from ntxent.torch import nt_xent

    leaf, other = torch.randn(2, 6, 3, dtype=torch.float64).unbind()
    leaf.requires_grad_()
    view = leaf * 2
    loss = nt_xent(view, other, implementation=implementation)
    (expected,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    view.mul_(3)
    (found,) = torch.autograd.grad(loss + view.sum(), leaf)
    torch.testing.assert_close(found, expected + 6, rtol=1e-12, atol=1e-12)


def test_an_optimizer_may_step_before_the_backward_pass_of_another_loss(torch: Any) -> None:
    from ntxent.torch import info_nce

    prototypes = torch.nn.Parameter(torch.randn(6, 3))
    query = torch.randn(6, 3, requires_grad=True)
    optimizer = torch.optim.SGD([prototypes], lr=0.1)
    loss = info_nce(query, prototypes)
    expected = torch.autograd.grad(loss, (query, prototypes), retain_graph=True)
    prototypes.grad = torch.ones_like(prototypes)
    optimizer.step()
    found = torch.autograd.grad(loss, (query, prototypes))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_offloaded_inputs_are_as_they_were(torch: Any, implementation: str) -> None:
    """A hook that keeps copies, as `save_on_cpu` does on a GPU, serves second derivatives too."""
    found = []
    for changed in (False, True):
        inputs = given(torch, "info_nce, queue")
        leaves = leaves_of(inputs)
        with torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda x: x):
            loss = loss_of("info_nce, queue", inputs, implementation=implementation)
        if changed:
            change(torch, *inputs.values())
        first = torch.autograd.grad(loss, leaves, retain_graph=True)
        again = torch.autograd.grad(loss, leaves, create_graph=True)
        total = sum((grad * 0.7).sum() for grad in again)
        found.append([*first, *(x.detach() for x in again), *torch.autograd.grad(total, leaves)])
    for got, expected in zip(*reversed(found), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_losses_are_served(torch: Any, implementation: str, reentrant: bool) -> None:
    from torch.utils.checkpoint import checkpoint

    for name in LOSSES:
        found = []
        for checkpointed in (False, True):
            inputs = given(torch, name)

            def loss(*values: Any, inputs: Any = inputs, name: str = name) -> Any:
                again = dict(zip(inputs, values, strict=True))
                return loss_of(name, again, implementation=implementation)

            run = loss
            if checkpointed:
                run = lambda *x, loss=loss: checkpoint(loss, *x, use_reentrant=reentrant)  # noqa: E731
            run(*inputs.values()).backward()
            found.append([x.grad for x in leaves_of(inputs)])
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def in_inference_mode(torch: Any, inputs: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The same inputs, those of these names made in inference mode."""
    with torch.inference_mode():
        made = {key: inputs[key].detach().clone() for key in names}
    return {key: made.get(key, x) for key, x in inputs.items()}


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_inputs_of_inference_mode_are_constants(
    torch: Any, implementation: str, name: str, reduction: str
) -> None:
    """Each alone, and all but one: the gradients of the others are what they were."""
    options = {"implementation": implementation, "reduction": reduction}
    inputs = given(torch, name)
    leaves = leaves_of(inputs)
    everything = dict(
        zip(
            map(id, leaves),
            torch.autograd.grad(loss_of(name, inputs, **options).sum(), leaves),
            strict=True,
        )
    )
    alone = [[key] for key in inputs]
    for names in (*alone, list(inputs)[1:], list(inputs)[:-1]):
        mixed = in_inference_mode(torch, inputs, names)
        left = leaves_of(mixed)
        if not left:
            continue
        found = torch.autograd.grad(loss_of(name, mixed, **options).sum(), left)
        for x, grad in zip(left, found, strict=True):
            torch.testing.assert_close(grad, everything[id(x)], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", LOSSES)
def test_a_second_derivative_beside_inference_mode(
    torch: Any, implementation: str, name: str
) -> None:
    """Autograd can't save the input, and nobody could see it change; "dense" needs it no more."""

    def second(inputs: dict[str, Any]) -> Any:
        loss = loss_of(name, inputs, implementation=implementation)
        (first,) = torch.autograd.grad(loss, inputs["z1"], create_graph=True)
        return torch.autograd.grad(first.square().sum(), inputs["z1"])[0]

    inputs = given(torch, name)
    expected = second(inputs)
    for key, x in inputs.items():
        mixed = in_inference_mode(torch, inputs, [key])
        if key == "z1":
            continue
        if implementation == "tiled" and x.is_floating_point():
            with pytest.raises(RuntimeError, match=r"inference_mode.*no_grad.*\"dense\""):
                second(mixed)
        else:
            torch.testing.assert_close(second(mixed), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", LOSSES)
def test_inference_mode_under_functional_transforms(
    torch: Any, implementation: str, name: str
) -> None:
    inputs = given(torch, name)
    (expected,) = torch.autograd.grad(loss_of(name, inputs), inputs["z1"])
    mixed = in_inference_mode(torch, inputs, list(inputs)[1:])

    def loss(z1: Any) -> Any:
        return loss_of(name, {**mixed, "z1": z1}, implementation=implementation)

    z1 = inputs["z1"].detach()
    torch.testing.assert_close(torch.func.grad(loss)(z1), expected, rtol=1e-12, atol=1e-14)
    (batched,) = torch.func.vmap(torch.func.grad(loss))(z1[None])
    torch.testing.assert_close(batched, expected, rtol=1e-12, atol=1e-14)
    _, slope = torch.func.jvp(loss, (z1,), (z1,))
    torch.testing.assert_close(slope, (expected * z1).sum(), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("how", ["backward", "create_graph", "never"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_nothing_is_held_once_it_is_over(
    torch: Any, implementation: str, reduction: str, how: str
) -> None:
    """Inputs are freed by the backward pass while the loss lives on, and with the loss at last.

    Without the collector's help: no cycle holds them.
    """
    from ntxent.torch import info_nce

    options = {"implementation": implementation, "reduction": reduction}
    query = torch.randn(6, 3, requires_grad=True)
    key, queue = torch.randn(2, 6, 3).unbind()
    view, key, queue = query * 2, key.clone(), queue.clone()
    held = [weakref.ref(x) for x in (view, key, queue)]
    gc.collect()
    gc.disable()
    try:
        loss = info_nce(view, key, queue, **options).sum()
        del view, key, queue
        if how == "create_graph":
            (first,) = torch.autograd.grad(loss, query, create_graph=True)
            torch.autograd.grad(first.square().sum(), query)
            del first
        if how == "backward":
            loss.backward()
        else:
            del loss
        assert [x() for x in held] == [None] * 3
    finally:
        gc.enable()
