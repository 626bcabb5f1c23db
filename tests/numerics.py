"""Measure docs/numerics.md's table: `python tests/numerics.py`, or `--write` to put it there."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ntxent import reference
from ntxent.torch import nt_xent

PAGE = Path(__file__).parents[1] / "docs" / "numerics.md"
START, END = "<!-- numerics:start -->", "<!-- numerics:end -->"


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


def main() -> None:
    """Print the table, or write it into the page."""
    found = table()
    print(found)
    if "--write" in sys.argv:
        before, rest = PAGE.read_text().split(START)
        after = rest.split(END)[1]
        note = "Relative errors in float32, N = 512, d = 128, views 3 % apart:\n\n"
        PAGE.write_text(f"{before}{START}\n{note}{found}\n{END}{after}")


if __name__ == "__main__":
    main()
