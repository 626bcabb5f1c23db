"""Inputs that are changed between the loss and its backward pass.

A queue is pushed to right after the loss, prototypes are renormalised. The gradient is that of the
values which the loss was given, and no second derivative is ever one of other values.
"""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from _torch_losses import (
    IMPLEMENTATIONS,
    LOSSES,
    change,
    chosen,
    given,
    in_inference_mode,
    leaves_of,
    loss_of,
)
from benchmarks.world import world

pytestmark = pytest.mark.only("torch")

DTYPES = ("float64", "float32", "bfloat16")


@pytest.fixture
def torch() -> Any:
    import torch

    torch.manual_seed(0)
    return torch


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request: Any, monkeypatch: Any) -> str:
    return chosen(request.param, monkeypatch)


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


def unlike_in_a_group(rank: int) -> list[Any]:
    """Losses of a group whose gradients differ after changes, or with inputs of inference mode."""
    import torch

    found = []
    for name in LOSSES:
        for implementation, exchange in (("tiled", "gather"), ("tiled", "ring"), ("dense", None)):
            options = {"implementation": implementation, "exchange": exchange, "group": True}
            grads = []
            for how in ("as they are", "changed", "inference mode"):
                inputs = given(torch, name)
                if how == "inference mode":
                    inputs = in_inference_mode(torch, inputs, list(inputs)[1:])
                loss = loss_of(name, inputs, **options)
                if how == "changed":
                    change(torch, *inputs.values())
                grads.append(torch.autograd.grad(loss, inputs["z1"])[0])
            if not all(torch.equal(grads[0], grad) and grad.any() for grad in grads):
                found.append((name, implementation, exchange))
    return found


def test_in_a_group_of_processes_too() -> None:
    """Where the backward pass has the loss's work still to do: an upstream of every process."""
    assert world(2, unlike_in_a_group) == [[], []]
