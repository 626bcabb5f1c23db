"""What the tests of docs/which-loss.md share: its code, batches, and the comparison."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np

from _tolerances import assert_within, relative_error
from blocks import blocks_of

tau = 0.2  # the names are those of the page
PAGE = Path(__file__).parents[1] / "docs/which-loss.md"


def blocks(text: str) -> list[str]:
    """The code of the page, or of a part of it."""
    return [block.code for block in blocks_of(text)]


def losses_in(code: str) -> set[str]:
    """What is assigned to a loss there, or to `ours`, in one spelling."""
    return {
        ast.unparse(node.value)
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("loss", "ours")
    }


def views(count: int = 2, images: int = 8) -> list[Any]:
    """Views of the images, of any length, that want gradients."""
    import torch

    rng = np.random.default_rng(0)
    shape = (images, 4)
    return [torch.tensor(rng.standard_normal(shape), requires_grad=True) for _ in range(count)]


def constants(*shape: int) -> Any:
    import torch

    return torch.tensor(np.random.default_rng(1).standard_normal(shape))


def unit(z: Any) -> Any:
    import torch

    return torch.nn.functional.normalize(z, dim=-1)


def four_labels() -> Any:
    """Two images each, for the rows of both views."""
    import torch

    return (torch.arange(8) // 2).repeat(2)


def uneven_labels() -> Any:
    """Classes of five rows, three, four, two, one and one, in no order."""
    import torch

    return torch.tensor([0, 1, 2, 0, 3, 0, 1, 4, 2, 0, 2, 5, 1, 0, 3, 2])


def assert_same(ours: Any, theirs: Any, inputs: list[Any], bound: float = 1e-9) -> None:
    """Value, and the gradient of every input."""
    import torch

    assert_within(relative_error(ours.item(), theirs.item()), bound, "value")
    found, expected = (
        [grad.numpy() for grad in torch.autograd.grad(loss, inputs, retain_graph=True)]
        for loss in (ours, theirs)
    )
    for mine, other in zip(found, expected, strict=True):
        assert_within(relative_error(mine, other, np.abs(other).max()), bound, "gradient")
