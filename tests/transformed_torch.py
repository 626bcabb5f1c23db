"""What compilers and transforms make of a loss in each process of tests/test_torch_across.py."""

from __future__ import annotations

from typing import Any

import torch

import _shards
from across_torch import error_of, rows
from ntxent import torch as losses

COMPILED = ("nt_xent", "nt_xent, ids", "sup_con", "info_nce, symmetric, queue, ids")


def compiled(rank: int, sizes: tuple[int, ...]) -> dict[str, float]:
    """The differences that a compiler makes; its default one once, as it takes its time."""
    backends = ["aot_eager", "aot_eager", "inductor", "aot_eager"]
    return {
        name: difference(rank, name, sizes, backend)
        for name, backend in zip(COMPILED, backends, strict=True)
    }


def difference(rank: int, name: str, sizes: tuple[int, ...], backend: str) -> float:
    """Value and gradient as a single graph, against those without a compiler."""
    case = _shards.shards(name, sizes)
    arrays = [torch.tensor(x, requires_grad=True) for x in case.arrays[rank]]
    integers = [torch.tensor(x) for x in case.integers[rank].values()]
    keys = [key for key in case.integers[rank] if key != "labels"]

    def loss(*given: Any) -> Any:
        options = {**case.options, **dict(zip(keys, given[len(arrays) :], strict=False))}
        given = given if case.loss == "sup_con" else given[: len(arrays)]
        return getattr(losses, case.loss)(*given, group=True, temperature=0.2, **options)

    found = []
    for function in (loss, torch.compile(loss, fullgraph=True, backend=backend)):
        value = function(*arrays, *integers)
        found.append([value.detach(), *torch.autograd.grad(value, arrays)])
    return max((a - b).abs().max().item() for a, b in zip(*found, strict=True))


def derivatives(rank: int, sizes: tuple[int, ...], implementation: str) -> Any:
    """A Hessian's product with a vector, by two reverse passes; what refuses to give it."""
    z1, z2 = rows(rank, sizes[rank], dtype=torch.float64)
    options = {"temperature": 0.2, "group": True, "implementation": implementation}

    def twice() -> Any:
        loss = losses.nt_xent(z1, z2, **options)
        (first,) = torch.autograd.grad(loss, z1, create_graph=True)
        (second,) = torch.autograd.grad((first * z1.detach().cos()).sum(), z1)
        return second

    forward = error_of(
        lambda: torch.func.jvp(lambda x: losses.nt_xent(x, z2, **options), (z1,), (z1,))
    )
    compiled = error_of(lambda: torch.func.hessian(lambda x: losses.nt_xent(x, z2, **options))(z1))
    return twice(), compiled, forward


def by_functions(rank: int, sizes: tuple[int, ...]) -> Any:
    """torch.func.grad, and vmap of two batches."""
    z1, z2 = rows(rank, sizes[rank], dtype=torch.float64)
    loss = losses.nt_xent(z1, z2, group=True)
    (expected,) = torch.autograd.grad(loss, z1)
    got = torch.func.grad(lambda x: losses.nt_xent(x, z2.detach(), group=True))(z1.detach())
    both = torch.func.vmap(lambda x: losses.nt_xent(x, z2.detach(), group=True))(
        torch.stack((z1, z1)).detach()
    )
    return (got - expected).abs().max().item(), (both - loss).abs().max().item()
