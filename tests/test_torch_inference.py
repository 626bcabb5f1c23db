"""Inputs that were made in inference mode, as keys and queues often are."""

from __future__ import annotations

from typing import Any

import pytest

from _torch_losses import (
    IMPLEMENTATIONS,
    LOSSES,
    chosen,
    given,
    in_inference_mode,
    leaves_of,
    loss_of,
)

pytestmark = pytest.mark.only("torch")


@pytest.fixture
def torch() -> Any:
    import torch

    torch.manual_seed(0)
    return torch


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request: Any, monkeypatch: Any) -> str:
    return chosen(request.param, monkeypatch)


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
