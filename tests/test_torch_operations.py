"""How many operations a step of PyTorch dispatches, and whose arithmetic a small batch has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.only("torch")
N, D = 64, 128


def rows(torch: Any, count: int, dtype: Any = None) -> list[Any]:
    made = torch.Generator().manual_seed(0)
    return [
        torch.randn(N, D, generator=made).to(dtype or torch.float32).requires_grad_()
        for _ in range(count)
    ]


def steps(torch: Any) -> dict[str, Any]:
    """A step of each loss."""
    from ntxent.torch import info_nce, nt_xent, sup_con

    a, b = rows(torch, 2)
    labels = torch.arange(N) % 8
    return {
        "nt_xent": lambda: nt_xent(a, b).backward(),
        "info_nce": lambda: info_nce(a, b, symmetric=True).backward(),
        "sup_con": lambda: sup_con(a, labels).backward(),
    }


def dispatched(step: Any) -> list[str]:
    """The operations that a step dispatches, forward and backward."""
    from torch.utils._python_dispatch import TorchDispatchMode

    found: list[str] = []

    class Listener(TorchDispatchMode):
        def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found.append(str(op))
            return op(*args, **(kwargs or {}))

    with Listener():
        step()
    return found


@pytest.mark.parametrize(
    ("name", "one_tile", "on_tensors"),
    [("nt_xent", 26, 43), ("info_nce", 34, 54), ("sup_con", 45, 85)],
)
def test_a_step_is_made_of_few_operations(
    backend: Any, monkeypatch: Any, name: str, one_tile: int, on_tensors: int
) -> None:
    """Each costs some microseconds, whatever it is given; many of them are a small batch's time."""
    from ntxent.torch import _one_tile

    step = steps(backend.torch)[name]
    found = dispatched(step)
    assert 10 < len(found) <= one_tile, found
    monkeypatch.setattr(_one_tile, "fits", lambda *_: False)
    found = dispatched(step)
    assert one_tile < len(found) <= on_tensors, found


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("loss", ["nt_xent", "info_nce", "sup_con"])
def test_both_ways_to_compute_rows_agree(
    backend: Any, monkeypatch: Any, dtype: str, loss: str
) -> None:
    """NumPy's arithmetic, which one tile has, against that of tensors, which larger batches have."""
    from ntxent.torch import _one_tile

    torch = backend.torch
    labels = torch.arange(N) % 9
    second = [labels] if loss == "sup_con" else rows(torch, 2, getattr(torch, dtype))[1:]
    for reduction in ("mean", "none"):
        for temperature in (0.2, 0.01):
            found = []
            for fits in (_one_tile.fits, lambda *_: False):
                monkeypatch.setattr(_one_tile, "fits", fits)
                given = rows(torch, 1, getattr(torch, dtype))
                tau = torch.tensor([temperature], requires_grad=True)
                value = getattr(backend.module, loss)(
                    *given, *second, temperature=tau, reduction=reduction
                )
                found.append([value, *torch.autograd.grad(value.sum(), [*given, tau])])
            monkeypatch.undo()
            for got, expected in zip(*found, strict=True):
                assert got.dtype == expected.dtype
                scale = expected.abs().max().item()
                eps = max(torch.finfo(got.dtype).eps, 1e-15)
                assert (got - expected).abs().max().item() <= 8 * eps * scale / temperature


def test_only_plain_tensors_on_a_cpu_are_looked_into(backend: Any) -> None:
    from ntxent.torch import _one_tile
    from ntxent.torch._implementations import Choice

    torch = backend.torch

    class Special(torch.Tensor):
        pass

    small, large = torch.zeros(8, 3), torch.zeros(600, 3)
    plain = Choice(None)
    assert _one_tile.fits([small, torch.nn.Parameter(small)], plain)
    assert not _one_tile.fits([small, large], plain)
    assert not _one_tile.fits([torch.zeros(8, 100, 3)], plain)
    assert not _one_tile.fits([small], Choice("triton"))
    assert not _one_tile.fits([small.as_subclass(Special)], plain)
    assert not _one_tile.fits([small.to("meta")], plain)


def test_a_default_device_does_not_matter(backend: Any) -> None:
    torch = backend.torch
    a, b = rows(torch, 2)
    queue = torch.randn(5, D)
    expected = backend.module.info_nce(a, b, queue)
    with torch.device("meta"):
        found = backend.module.info_nce(a, b, queue)
    assert torch.equal(found, expected)


def test_nothing_warns(backend: Any, recwarn: Any) -> None:
    """Of logarithms of nothing and the like, which NumPy tells."""
    torch = backend.torch
    a, b = (x[:3] for x in rows(torch, 2))
    value = backend.module.nt_xent(a, b, ids=torch.zeros(3, dtype=torch.long), reduction="none")
    value.sum().backward()
    assert np.isfinite(value.detach().numpy()).all()
    assert not recwarn.list
