"""What PyTorch's transforms make of every implementation: right, or refused with an error.

    TRITON_INTERPRET=1 python tests/transforms.py            the table (also on a GPU without it)
    TRITON_INTERPRET=1 python tests/transforms.py --write    and put it into docs/pytorch.md

Each cell is the transform's result against plain autograd through the dense form in float64; any
other number than that is an error here, as in tests/test_transforms.py, which checks every cell.
"""

from __future__ import annotations

import argparse
import re
import sys
import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.utils.checkpoint import checkpoint

from _benchmarks import marks
from ntxent.torch import NTXentLoss, info_nce, nt_xent, sup_con

IMPLEMENTATIONS = ("dense", "tiled", "triton")
PAGE = "docs/pytorch.md"
ROWS, DIM = 5, 3

Loss = Callable[..., Any]


def points(dtype: torch.dtype, device: str = "cpu") -> tuple[Any, Any]:
    """Two towers; what is differentiated is the first."""
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, ROWS, DIM, generator=rng, dtype=torch.float64)
    return x.to(device, dtype), y.to(device, dtype)


def loss_of(implementation: str, y: Any) -> Loss:
    """The family: rows and columns of the hot operation, sums of classes, a learned temperature."""
    labels = torch.arange(ROWS, device=y.device) // 2 % 2

    def loss(x: Any) -> Any:
        temperature = 0.4 + 0.1 * x.mean().tanh()
        options = {"temperature": temperature, "implementation": implementation}
        both = info_nce(x, y, y.flip(0), symmetric=True, **options)
        return both + nt_xent(x, y, **options) + sup_con(x, labels, **options)

    return loss


def gradient(loss: Loss, x: Any, create_graph: bool = False) -> Any:
    """By autograd itself."""
    leaf = x if x.requires_grad else x.detach().requires_grad_()
    return torch.autograd.grad(loss(leaf), leaf, create_graph=create_graph)[0]


def second(loss: Loss, x: Any) -> Any:
    """All second derivatives, by autograd alone."""
    leaf = x.detach().requires_grad_()
    first = gradient(loss, leaf, create_graph=True).flatten()
    rows = [torch.autograd.grad(g, leaf, retain_graph=True)[0] for g in first]
    return torch.stack(rows).reshape(*x.shape, *x.shape)


def dual(loss: Loss, x: Any) -> Any:
    """Forward mode without torch.func."""
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(loss(forward_ad.make_dual(x, x.cos()))).tangent


def compiled(function: Callable[..., Any], *inputs: Any, dynamic: bool | None = None) -> Any:
    """Under torch.compile, as a single graph."""
    torch.compiler.reset()
    made = torch.compile(function, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    return made(*inputs)


def exported(implementation: str, x: Any, y: Any, strict: bool) -> Any:
    """A module exported with one batch size and called with another."""
    module = NTXentLoss(temperature=0.4, implementation=implementation)
    batch = torch.export.Dim("batch", min=2)
    shapes = (({0: batch}, {0: batch}),)
    example = x.repeat(2, 1), y.repeat(2, 1)
    program = torch.export.export(module, example, dynamic_shapes=shapes, strict=strict)
    return program.module()(x, y)


def in_threads(loss: Loss, x: Any) -> Any:
    """The gradient from four threads at once, which must be one and the same."""
    found: list[Any] = []
    work = [threading.Thread(target=lambda: found.append(gradient(loss, x))) for _ in range(4)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert len(found) == len(work)
    assert all(torch.equal(found[0], other) for other in found)
    return found[0]


def deterministic(loss: Loss, x: Any) -> Any:
    """The gradient under torch.use_deterministic_algorithms, twice."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        found = [gradient(loss, x) for _ in range(2)]
    finally:
        torch.use_deterministic_algorithms(before)
    assert torch.equal(*found)
    return found[0]


def checkpointed(loss: Loss, x: Any, reentrant: bool) -> Any:
    """The gradient through torch.utils.checkpoint, which runs the loss twice."""
    leaf = x.detach().requires_grad_()
    checkpoint(loss, leaf, use_reentrant=reentrant).backward()
    return leaf.grad


def inference(loss: Loss, x: Any) -> Any:
    """The value alone."""
    with torch.inference_mode():
        return loss(x).clone()


def many(x: Any) -> Any:
    """A few batches for vmap."""
    return torch.stack([x, x.sin(), 2 * x + 1])


def value(loss: Loss, x: Any) -> Any:
    """As it is."""
    return loss(x)


def tangent(loss: Loss, x: Any) -> Any:
    """The derivative along cos(x), by autograd."""
    return (gradient(loss, x) * x.cos()).sum()


def by_jvp(loss: Loss, x: Any) -> Any:
    return jvp(loss, (x,), (x.cos(),))[1]


def along_twice(loss: Loss, x: Any) -> Any:
    """The second derivative along cos(x), by autograd."""
    direction = x.cos().flatten()
    return direction @ second(loss, x).reshape(x.numel(), -1) @ direction


def forward_over_forward(loss: Loss, x: Any) -> Any:
    direction = x.cos()
    inner = lambda x: jvp(loss, (x,), (direction,))[1]  # noqa: E731
    return jvp(inner, (x,), (direction,))[1]


def each(loss: Loss, x: Any) -> Any:
    return torch.stack([loss(one) for one in many(x)])


def each_gradient(loss: Loss, x: Any) -> Any:
    return torch.stack([gradient(loss, one) for one in many(x)])


# What is done, and the same by plain autograd.
TRANSFORMS: dict[str, tuple[Loss, Loss]] = {
    "`backward`": (gradient, gradient),
    "`create_graph=True`, then `backward`": (second, second),
    "`func.grad`": (lambda loss, x: grad(loss)(x), gradient),
    "`func.vjp`": (lambda loss, x: vjp(loss, x)[1](torch.ones_like(loss(x)))[0], gradient),
    "`func.jacrev`": (lambda loss, x: jacrev(loss)(x), gradient),
    "`func.jacfwd`": (lambda loss, x: jacfwd(loss)(x), gradient),
    "`func.jvp`": (by_jvp, tangent),
    "`func.jvp` of `func.jvp`": (forward_over_forward, along_twice),
    "`func.hessian`": (lambda loss, x: hessian(loss)(x), second),
    "`func.jacrev` of `func.jacrev`": (lambda loss, x: jacrev(jacrev(loss))(x), second),
    "`func.jacrev` of `func.jacfwd`": (lambda loss, x: jacrev(jacfwd(loss))(x), second),
    "`func.vmap`": (lambda loss, x: vmap(loss)(many(x)), each),
    "`func.vmap` of `func.grad`": (lambda loss, x: vmap(grad(loss))(many(x)), each_gradient),
    "`forward_ad.dual_level`": (dual, tangent),
    "`torch.compile`, one graph": (partial(compiled), value),
    "… then `backward`": (lambda loss, x: gradient(partial(compiled, loss), x), gradient),
    "… then `backward` twice": (lambda loss, x: second(partial(compiled, loss), x), second),
    "`torch.compile` of `func.grad`": (lambda loss, x: compiled(grad(loss), x), gradient),
    "`torch.compile` of `func.jacrev` twice": (
        lambda loss, x: compiled(jacrev(jacrev(loss)), x),
        second,
    ),
    "`torch.compile` of `func.vmap`": (lambda loss, x: compiled(vmap(loss), many(x)), each),
    "`torch.compile` of `func.jvp`": (
        lambda loss, x: compiled(partial(by_jvp, loss), x),
        tangent,
    ),
    "`checkpoint`": (partial(checkpointed, reentrant=False), gradient),
    "`checkpoint`, reentrant": (partial(checkpointed, reentrant=True), gradient),
    "`inference_mode`": (inference, value),
    "`use_deterministic_algorithms`": (deterministic, gradient),
    "four threads": (in_threads, gradient),
}
EXPORTS = {"`torch.export`, any batch": False, "`torch.export(strict=True)`, any batch": True}
NAMES = (*TRANSFORMS, *EXPORTS)


def outcome(name: str, implementation: str) -> str:
    """What came of it; a wrong number is an AssertionError."""
    if implementation == "triton" and name == "four threads" and not torch.cuda.is_available():
        return "–"  # Triton's interpreter is one for all threads
    x, y = points(torch.float64)
    if implementation == "triton":
        x, y = points(torch.float32, "cuda" if torch.cuda.is_available() else "cpu")
    exact, other = points(torch.float64)
    try:
        if name in EXPORTS:
            got = exported(implementation, x, y, EXPORTS[name])
            expected = nt_xent(exact, other, temperature=0.4, implementation="dense")
        else:
            transform, plain = TRANSFORMS[name]
            got = transform(loss_of(implementation, y), x)
            expected = plain(loss_of("dense", other), exact)
    except RuntimeError:  # NotImplementedError is one
        return "refused"
    bound = 1e-4 if implementation == "triton" else 1e-9
    torch.testing.assert_close(got.double().cpu(), expected, rtol=bound, atol=bound)
    return "right"


def table(cells: dict[tuple[str, str], str]) -> str:
    """As Markdown."""
    lines = [f"| transform | {' | '.join(IMPLEMENTATIONS)} |", "|---|---|---|---|"]
    for name in NAMES:
        found = " | ".join(cells[name, implementation] for implementation in IMPLEMENTATIONS)
        lines.append(f"| {name} | {found} |")
    return "\n".join(lines)


def page_cells() -> dict[tuple[str, str], str]:
    """What the page says."""
    lines = marks.read(PAGE, "transforms").split("\n")[2:]
    rows = [re.split(r" *\| *", line.strip("| ")) for line in lines]
    return {
        (name, implementation): cell
        for name, *cells in rows
        for implementation, cell in zip(IMPLEMENTATIONS, cells, strict=True)
    }


def main() -> None:
    """Fill the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--write", action="store_true", help="also into docs/pytorch.md")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    cells = {(name, how): outcome(name, how) for name in NAMES for how in IMPLEMENTATIONS}
    made = table(cells)
    sys.stdout.write(made + "\n")
    if options.write:
        marks.write(PAGE, transforms=made)


if __name__ == "__main__":
    main()
