"""Measure the tables of docs/numerics.md: `python tests/numerics.py`; `--write` puts them there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F

from _benchmarks import marks
from ntxent import reference
from ntxent.torch import nt_xent
from ntxent.torch._pairs import logsumexp


def cross_entropy(z1: torch.Tensor, z2: torch.Tensor, temperature: float) -> torch.Tensor:
    """The form that is usually pasted."""
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    rows = len(z)
    logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    return F.cross_entropy(logits, torch.arange(rows).roll(rows // 2))


def errors(temperature: float, images: int = 512, dim: int = 128) -> list[str]:
    """A row of the table: the true loss, and each form's error of loss and gradient."""
    rng = np.random.default_rng(0)
    first = rng.standard_normal((images, dim))
    views = [first, first + 0.03 * rng.standard_normal(first.shape)]
    inputs = [view.astype(np.float32) for view in views]
    exact = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in inputs]
    tau = float(np.float32(temperature))
    truth = nt_xent(*exact, temperature=tau, implementation="dense")
    truth.backward()
    cells = [f"{temperature:g}", f"{truth.item():.1e}"]
    for form in (cross_entropy, nt_xent):
        leaves = [torch.tensor(x, requires_grad=True) for x in inputs]
        loss = form(*leaves, temperature=temperature)
        loss.backward()
        scale = max(x.grad.abs().max() for x in exact)
        gradient = max(
            (leaf.grad - x.grad).abs().max() / scale for leaf, x in zip(leaves, exact, strict=True)
        )
        cells += [f"{abs(loss.item() / truth.item() - 1):.0e}", f"{gradient:.0e}"]
    return cells


def table() -> str:
    """The table in Markdown; the float64 truth is held to the loops once."""
    small = np.random.default_rng(1).standard_normal((2, 8, 4))
    same = nt_xent(*map(torch.tensor, small), temperature=0.1, implementation="dense").item()
    assert abs(same / reference.nt_xent(*small) - 1) < 1e-12
    lines = [
        "| τ | true loss | cross-entropy: loss | its gradient | ntxent: loss | its gradient |",
        "|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(errors(tau))} |" for tau in (0.5, 0.1, 0.05, 0.02, 0.01)]
    return "\n".join(lines)


def rounded_to(bits: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Float64 rounded to so many bits after the first; the derivative is that of no rounding."""

    def rounded(x: torch.Tensor) -> torch.Tensor:
        mantissa, exponent = torch.frexp(x.detach())
        steps = 2.0 ** (bits + 1)
        return x + (torch.ldexp((mantissa * steps).round() / steps, exponent) - x.detach())

    return rounded


def lowered(bits: int, temperature: float, noise: float) -> list[str]:
    """The error of loss and gradient if the factors of the scores' product have fewer bits.

    All else is in float64: what is left is the rounding of the unit rows.
    """
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 512, 128))
    views = [torch.tensor(x, requires_grad=True) for x in (first, first + noise * second)]
    dense, rounded = logsumexp.dense, rounded_to(bits)

    def low(queries: torch.Tensor, keys: torch.Tensor | None, *rest: Any) -> torch.Tensor:
        return dense(rounded(queries), None if keys is None else rounded(keys), *rest)

    found = []
    for form in (dense, low):
        with mock.patch.object(logsumexp, "dense", form):
            loss = nt_xent(*views, temperature=temperature, implementation="dense")
        found.append((loss.item(), torch.cat(torch.autograd.grad(loss, views))))
    (truth, exact), (value, grad) = found
    error = ((grad - exact).abs().max() / exact.abs().max()).item()
    return [f"{abs(value / truth - 1):.0e}", f"{error:.0e}"]


def lowered_table() -> str:
    """The same in Markdown."""
    lines = [
        "| τ | views | TF32, float16: loss | its gradient | bfloat16: loss | its gradient |",
        "|---|---|---|---|---|---|",
    ]
    for noise, views in ((1.0, "random"), (0.03, "3 % apart")):
        for tau in (0.5, 0.1, 0.05, 0.02):
            cells = [f"{tau:g}", views, *lowered(10, tau, noise), *lowered(7, tau, noise)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def of_dtype(dtype: torch.dtype, temperature: float = 0.1) -> list[str]:
    """What views of a dtype give: its loss and gradient, and what rounding the views has cost."""
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 512, 128))
    views = [torch.tensor(x) for x in (first, first + 0.3 * second)]
    true, exact = value_and_gradient(views, "dense", temperature)
    rounded = [x.to(dtype) for x in views]
    theirs, exact_theirs = value_and_gradient([x.double() for x in rounded], "dense", temperature)
    loss, gradient = value_and_gradient(rounded, None, temperature)
    found = [str(x.dtype).removeprefix("torch.") for x in (rounded[0], loss, gradient)]

    def apart(a: torch.Tensor, b: torch.Tensor) -> str:
        return f"{((a.double() - b).abs().max() / b.abs().max()).item():.0e}"

    errors = [apart(loss, theirs), apart(gradient, exact_theirs)]
    return [*found, *errors, apart(theirs, true), apart(exact_theirs, exact)]


def value_and_gradient(
    views: list[torch.Tensor], implementation: str | None, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss, and its gradient by all views."""
    leaves = [x.detach().requires_grad_() for x in views]
    loss = nt_xent(*leaves, temperature=temperature, implementation=implementation)
    return loss.detach(), torch.cat(torch.autograd.grad(loss, leaves))


def dtype_table() -> str:
    """The same in Markdown."""
    heads = ["views", "loss is", "gradient is", "error of the loss", "of the gradient"]
    heads += ["rounding the views: loss", "gradient"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    dtypes = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    return "\n".join(lines + [f"| {' | '.join(of_dtype(dtype))} |" for dtype in dtypes])


TABLES = {
    "dtypes": ("Relative errors, N = 512, d = 128, τ = 0.1, views 30 % apart:", dtype_table),
    "numerics": ("Relative errors in float32, N = 512, d = 128, views 3 % apart:", table),
    "lowered": ("Relative errors of the rounding of unit rows, N = 512, d = 128:", lowered_table),
}


def main() -> None:
    """Print the tables, or write them into the page."""
    for name, (note, made) in TABLES.items():
        found = made()
        print(f"{note}\n{found}")
        if "--write" in sys.argv:
            marks.write("docs/numerics.md", **{name: f"{note}\n\n{found}"})


if __name__ == "__main__":
    main()
