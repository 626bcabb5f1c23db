"""What PyTorch's users expect of `torch.compile`: one graph, the right digits, no matrix."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from _torch_towers import quiet, towers  # noqa: F401 every test is quiet

pytestmark = pytest.mark.only("torch")

with contextlib.suppress(ImportError):  # and then there is no test of this file either
    import torch

LOSSES = ("nt_xent", "nt_xent, ids", "three views", "temperature", "sup_con", "info_nce", "own")
LOSSES += ("queue",)


def loss_of(name: str, implementation: str | None) -> Callable[..., Any]:
    """A loss of two towers, whatever their number of rows."""
    from ntxent.torch import info_nce, nt_xent, sup_con

    how = {"implementation": implementation, "temperature": 0.3}

    def numbers(a: Any) -> Any:
        return torch.arange(a.shape[0], device=a.device) // 2

    def learned(a: Any, b: Any) -> Any:
        options = {**how, "temperature": 0.1 + b.square().mean()}
        return nt_xent(a, b, reduction="none", **options).square().sum()

    return {
        "nt_xent": lambda a, b: nt_xent(a, b, **how),
        "nt_xent, ids": lambda a, b: nt_xent(a, b, ids=numbers(a), **how),
        "three views": lambda a, b: nt_xent(
            a, b, a * b, denominator="negatives", reduction="sum", **how
        ),
        "temperature": learned,
        "sup_con": lambda a, b: sup_con(torch.cat([a, b]), numbers(a).repeat(2), **how),
        "info_nce": lambda a, b: info_nce(a, b, symmetric=True, **how),
        "own": lambda a, b: info_nce(a, b, a[:, None] + b[:, None], **how),
        "queue": lambda a, b: info_nce(a, b, a.tanh(), symmetric=True, **how),
    }[name]


@pytest.mark.parametrize("implementation", [None, "dense"])
@pytest.mark.parametrize("name", LOSSES)
def test_one_graph_serves_every_batch_size(name: str, implementation: str | None) -> None:
    """torch.compile with its default compiler: no break, no second graph, value and gradients."""
    from torch._dynamo.utils import counters

    loss = loss_of(name, implementation)
    compiled = torch.compile(loss, fullgraph=True, dynamic=True)
    counters.clear()
    for rows in (6, 9, 33):
        a, b = towers(rows)
        got, expected = compiled(a, b), loss(a, b)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
        for x, y in zip(*(torch.autograd.grad(v, (a, b)) for v in (got, expected)), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


@pytest.mark.parametrize(
    ("rows", "dynamic", "implementation", "expected"),
    [
        (256, False, None, False),
        (257, False, None, True),
        (256, True, None, True),
        (256, False, "tiled", True),
    ],
)
def test_a_compiler_fuses_a_batch_of_one_tile(
    rows: int, dynamic: bool, implementation: str | None, expected: bool
) -> None:
    """Of a size that it knows, unless the tiles are asked for by name."""
    loss, called = loss_of("nt_xent", implementation), []

    def compiler(graph: Any, inputs: Any) -> Any:
        del inputs
        called.append("pair_logsumexp" in graph.code)
        return graph

    a, b = towers(rows)
    got = torch.compile(loss, fullgraph=True, dynamic=dynamic, backend=compiler)(a, b)
    assert called == [expected]
    torch.testing.assert_close(got, loss(a, b))


def test_a_compiled_batch_of_many_tiles(monkeypatch: Any) -> None:
    """The operator runs the tiles themselves: their values, and no array of n^2 elements."""
    from ntxent.torch import nt_xent
    from ntxent.torch._pairs import tiled

    a, b = towers(50)
    expected = nt_xent(a, b)
    monkeypatch.setattr(tiled, "TILE", 8)
    got = torch.compile(nt_xent, fullgraph=True)(a, b)
    torch.testing.assert_close(got, expected)
    for x, y in zip(*(torch.autograd.grad(v, (a, b)) for v in (got, expected)), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-6)


def test_compiled_sums_of_classes_give_the_same_bits() -> None:
    """Inductor would add them with atomics, in the order in which threads arrive."""
    from ntxent.torch import sup_con

    x = torch.randn(4096, 64, requires_grad=True)
    labels = torch.arange(4096) % 3
    compiled = torch.compile(sup_con, fullgraph=True)
    losses = [compiled(x, labels) for _ in range(4)]
    grads = [torch.autograd.grad(loss, x)[0] for loss in losses]
    assert all(torch.equal(losses[0], other) for other in losses)
    assert all(torch.equal(grads[0], other) for other in grads)


@pytest.mark.parametrize("learn", [False, True])
def test_a_compiled_module_and_a_training_step(learn: bool) -> None:
    from ntxent.torch import NTXentLoss

    module = NTXentLoss(temperature=0.3, learn_temperature=learn)
    encoder = torch.nn.Linear(4, 4)

    def step(a: Any, b: Any) -> Any:
        return module(encoder(a), encoder(b))

    a, b = (x.detach() for x in towers(9))
    found = []
    for function in (step, torch.compile(step, fullgraph=True)):
        parameters = [*encoder.parameters(), *module.parameters()]
        found.append(torch.autograd.grad(function(a, b), parameters))
    for x, y in zip(*found, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-6)
