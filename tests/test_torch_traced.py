"""What docs/pytorch.md says of compilers and tracers beside its table."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from _torch_losses import LOSSES, change, given, loss_of

pytestmark = pytest.mark.only("torch")


@pytest.fixture
def torch() -> Iterator[Any]:
    import torch

    torch.manual_seed(0)
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # what torch deprecates in itself
        yield torch


@pytest.mark.covering
@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("implementation", ["dense", "tiled", None])
@pytest.mark.parametrize("how", ["a number", "a fixed module", "a learned module"])
def test_a_schedule_of_temperatures_is_compiled_for_twice_at_most(
    torch: Any, how: str, implementation: str | None, dynamic: bool | None
) -> None:
    from ntxent.torch import NTXentLoss, nt_xent

    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        del inputs
        graphs.append(graph)
        return graph.forward

    def loss(z1: Any, z2: Any, temperature: float) -> Any:
        return nt_xent(z1, z2, temperature=temperature, implementation=implementation)

    options = {"fullgraph": True, "dynamic": dynamic, "backend": backend}
    z1, z2 = torch.randn(2, 6, 8)
    module = NTXentLoss(learn_temperature="learned" in how, implementation=implementation)
    compiled = torch.compile(loss if how == "a number" else module, **options)
    for temperature in (0.5, 0.4, 0.3, 0.2, 0.1, 0.05):
        module.temperature = temperature
        got = compiled(z1, z2, *([temperature] if how == "a number" else []))
        torch.testing.assert_close(got, loss(z1, z2, temperature), rtol=1e-5, atol=1e-6)
    assert len(graphs) == (2 if dynamic is None and "learned" not in how else 1)


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compiled_what_is_changed_after_the_loss_is_right_or_refused(
    torch: Any, compiler: str
) -> None:
    """A compiler saves what it likes, a view perhaps, which PyTorch then looks at."""
    from ntxent.torch import info_nce

    compiled = torch.compile(info_nce, fullgraph=True, backend=compiler)
    query, key, queue = torch.randn(3, 6, 8)
    query.requires_grad_()
    (expected,) = torch.autograd.grad(info_nce(query, key, queue), query)
    for changed in ("key", "queue", "view"):
        view = query.detach().clone().requires_grad_()
        inputs = {"view": view, "key": key.clone(), "queue": queue.clone()}
        loss = compiled(*inputs.values())
        change(torch, inputs[changed])
        try:
            (found,) = torch.autograd.grad(loss, view)
        except RuntimeError as error:
            assert changed == "view"
            assert "modified by an inplace operation" in str(error)  # noqa: PT017 or none at all
        else:
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def outcome(torch: Any, name: str, implementation: str, tensor: bool) -> Any:
    """The shape of the gradient of fake inputs, or that they were refused."""
    from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

    inputs = given(torch, name)
    if not tensor:
        inputs["temperature"] = 0.3
    with FakeTensorMode() as mode:
        fakes = {
            key: mode.from_tensor(x) if isinstance(x, torch.Tensor) else x
            for key, x in inputs.items()
        }
        try:
            loss = loss_of(name, fakes, implementation=implementation)
        except DataDependentOutputException:
            return "refused"
        loss.backward()
        assert loss.shape == ()
        return tuple(fakes["z1"].grad.shape)


@pytest.mark.parametrize("tensor", [False, True], ids=["number", "tensor"])
@pytest.mark.parametrize("implementation", ["dense", "tiled"])
@pytest.mark.parametrize("name", LOSSES)
def test_fake_tensors_have_shapes_where_nothing_has_to_be_read(
    torch: Any, name: str, implementation: str, tensor: bool
) -> None:
    tiled = implementation == "tiled"
    read = name.startswith("sup_con") or (tiled and (tensor or "queue" in name))
    expected = "refused" if read else (6, 3)
    assert outcome(torch, name, implementation, tensor) == expected


def test_meta_tensors_are_refused_and_several_upstreams_right_or_refused(torch: Any) -> None:
    from ntxent.torch import nt_xent

    meta = torch.zeros(6, 3, device="meta")
    with pytest.raises(RuntimeError):
        nt_xent(meta, meta)
    z1, z2 = torch.randn(2, 6, 3, dtype=torch.float64)
    z1.requires_grad_()
    upstreams = torch.eye(12, dtype=torch.float64)
    by_rows = nt_xent(z1, z2, reduction="none", implementation="dense")
    (found,) = torch.autograd.grad(by_rows, z1, upstreams, is_grads_batched=True)
    assert found.shape == (12, 6, 3)
    by_rows = nt_xent(z1, z2, reduction="none", implementation="tiled")
    (again,) = torch.autograd.grad(by_rows, z1, upstreams, is_grads_batched=True)
    torch.testing.assert_close(again, found, rtol=1e-12, atol=1e-14)
    mean = nt_xent(z1, z2, implementation="tiled").reshape(1)
    with pytest.raises(RuntimeError, match="Batching rule not implemented"):
        torch.autograd.grad(mean, z1, upstreams[:1, :1], is_grads_batched=True)
