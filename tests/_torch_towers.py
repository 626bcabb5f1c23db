"""Two towers for tests of PyTorch's transforms and compilers, and a fresh start for each."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Each compilation by itself; what torch deprecates in itself is no concern here."""
    import torch

    torch.manual_seed(0)
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield


def towers(rows: int, dtype: Any = None) -> list[Any]:
    import torch

    return [torch.randn(rows, 4, dtype=dtype, requires_grad=True) for _ in range(2)]
