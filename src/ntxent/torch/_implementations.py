"""The implementations of the closed form, and which one serves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from ntxent._pairs import Side
from ntxent.torch import _matrix, _tiled
from ntxent.torch._tile import Found, Pairs


class Implementation(Protocol):
    """What the modules of the closed form have in common."""

    def forward(self, pairs: Pairs, *, keep: bool) -> tuple[Found, Found | None, list[Tensor]]:
        """What is found along rows and (if asked) columns; what is kept for the backward pass."""

    def backward(
        self, pairs: Pairs, row: Side, column: Side | None, kept: Sequence[Tensor], by_keys: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The gradients of queries and (if wanted) keys; without keys one, of both together."""


def serving(pairs: Pairs, implementation: str) -> Implementation:
    """The one of this name; a batch of one tile needs no loop."""
    del implementation
    rows = max(pairs.queries.shape[0], pairs.others.shape[0])
    return _matrix if rows <= _tiled.TILE else _tiled
