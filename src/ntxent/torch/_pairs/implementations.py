"""The implementations of the closed form, and which one serves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ntxent._pairs.sides import Side
from ntxent.torch._pairs import one_tile, tiled
from ntxent.torch._pairs.tile import Found, Pairs

IMPLEMENTATIONS: tuple[str, ...] = ("dense", "tiled", "triton")


class Choice(NamedTuple):
    """Which implementation is to serve, and how."""

    name: str | None  # None: the fastest that serves
    product: torch.dtype | None = None  # of the scores' product, where autocast lowers it


class Implementation(Protocol):
    """What the modules of the closed form have in common."""

    def forward(self, pairs: Pairs, *, keep: bool) -> tuple[Found, Found | None, list[Tensor]]:
        """What is found along rows and (if asked) columns; what is kept for the backward pass."""

    def backward(
        self, pairs: Pairs, row: Side, column: Side | None, kept: Sequence[Tensor], by_keys: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The gradients of queries and (if wanted) keys; without keys one, of both together."""


def serving(pairs: Pairs, implementation: str | None) -> Implementation:
    """The one of this name; one that can't serve is refused, none is replaced by another.

    Asked where the work is done, not where a tracer would have to follow.
    """
    if (implementation or default_for(pairs.queries)) == "triton":
        check_serves(pairs.queries)
        from ntxent.torch._kernels import launch

        return launch
    rows, keys = pairs.queries.shape[0], pairs.keys
    if keys is not None:
        rows = max(rows, keys.shape[0])
    return one_tile if rows <= tiled.TILE else tiled


def divides_by_sums(pairs: Pairs, implementation: str | None) -> bool:
    """Whether its backward pass divides exponentials by their sums, or else by logarithms of them.

    The kernels do the second always, and don't read a learned scale to decide it.
    """
    return (implementation or default_for(pairs.queries)) != "triton" and not pairs.shifted()


def check_serves(rows: Tensor) -> None:
    """Refuse rows that the kernels can't take."""
    reason = missing(rows)
    if reason is not None:
        msg = f'implementation="triton" can\'t serve: {reason}, or use implementation="tiled".'
        raise RuntimeError(msg)


def default_for(rows: Tensor) -> str:
    """The fastest that serves these rows."""
    return "triton" if rows.device.type == "cuda" and missing(rows) is None else "tiled"


@cache
def has_triton() -> bool:
    """Whether 3.4 or newer is installed; looked up once, as that costs more than a small batch."""
    return find_spec("triton") is not None and find_spec("triton.knobs") is not None


def missing(rows: Tensor) -> str | None:
    """Why the kernels can't serve these rows; None if they can."""
    if not has_triton():
        return 'it needs triton 3.4 or newer; install it with: pip install "ntxent[triton]"'
    if rows.dtype == torch.float64:
        return "it computes in float32 and the rows are float64; convert them"
    from triton import knobs

    if knobs.runtime.interpret:
        return None
    if rows.device.type != "cuda":
        return f"it needs a CUDA device and the rows are on {rows.device}; move them"
    capability = torch.cuda.get_device_capability(rows.device)
    if capability < (8, 0):
        return "it needs compute capability 8.0 and this device has {}.{}".format(*capability)
    return None
