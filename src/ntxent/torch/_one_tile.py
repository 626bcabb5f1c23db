"""The closed form of a batch of one tile on a CPU: PyTorch's tiles, NumPy's arithmetic of rows.

An operation on the few numbers of such a batch is all overhead, and NumPy's is a third of
PyTorch's: at N = 16 a step takes 0.6 times as long (docs/adr/0015). Arrays share the tensors'
memory; products of rows and exponentials of scores stay PyTorch's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ntxent import _range
from ntxent._classes import Classes
from ntxent._closed_numpy import Array, NumpyClosedOps
from ntxent._pairs import Side
from ntxent.torch import _matrix, _tiled
from ntxent.torch._exclusion import Ids
from ntxent.torch._implementations import Choice
from ntxent.torch._tile import Pairs, weights


PLAIN = Tensor, torch.nn.Parameter


def fits(arrays: Sequence[Tensor], choice: Choice) -> bool:
    """Whether these are few enough, and plain tensors that NumPy can look into."""
    rows = 0
    for x in arrays:
        if type(x) not in PLAIN or x.device.type != "cpu":
            return False
        rows += x.shape[0] if x.dim() == 2 else x.shape[0] * x.shape[1]
    return rows <= _tiled.TILE and choice.name != "triton"


class OneTileOps(NumpyClosedOps):
    """What the closed form asks, with the hot operation on tensors."""

    def quiet(self) -> Any:
        """NaN and infinity show in the loss; 1/0 and log 0 are meant."""
        return np.errstate(all="ignore")

    def given(self, x: Any) -> Any:
        """A tensor as an array, of the same memory if NumPy has its dtype."""
        return as_array(x.detach()) if isinstance(x, Tensor) else x

    def made(self, x: Any) -> Tensor | None:
        """An array, or a number of NumPy's, as a tensor."""
        return None if x is None else torch.from_numpy(np.asarray(x))

    def stack(self, *arrays: Tensor) -> Array:
        return super().stack(stacked(arrays))

    def unit_rows(self, arrays: Sequence[Tensor]) -> tuple[Array, Array]:
        return super().unit_rows([stacked(arrays)])

    def classes(self, labels: Tensor, across: Any) -> Classes:
        return super().classes(labels.numpy(), across)

    def one_id(self, rows: Array, value: int) -> Tensor:
        return torch.full((len(rows),), value, device="cpu")

    def closed_pairs(
        self, query_ids: Any, key_ids: Any, unit: bool, columns: bool, choice: Choice, across: Any
    ) -> OneTilePairs:
        """The hot operation; ids of classes were made here."""
        del across
        ids = [torch.from_numpy(x) if isinstance(x, np.ndarray) else x for x in (query_ids, key_ids)]
        return OneTilePairs((ids[0], ids[1]), unit, columns, choice.product)


class OneTilePairs(NamedTuple):
    """As `ClosedPairs`: the tile is PyTorch's, sums and weights of its rows are NumPy's."""

    ids: Ids
    unit: bool
    columns: bool
    product: torch.dtype | None

    def forward(
        self, queries: Array, keys: Array | None, scale: Any, keep: bool
    ) -> tuple[list[Array], Any]:
        """The log-sum-exps of rows, then of columns if asked; what the backward pass needs."""
        del keep
        rows = tensors(queries, keys)
        pairs = Pairs(*rows, float(scale), *self)
        shifted = pairs.shifted()
        tile, _ = _matrix.filled(pairs, shifted)
        dims = (1, 0) if self.columns else (1,)
        if shifted:
            lses = divisors = [tile.logsumexp(dim).numpy() for dim in dims]
            nothing = -math.inf
        else:
            divisors, nothing = [tile.sum(dim).numpy() for dim in dims], 0.0
            lses = [np.log(sums) for sums in divisors]
        # A row without any pair: its weights shall be 0 / inf, or exp(-inf - inf).
        divisors = [np.where(x == nothing, math.inf, x) for x in divisors]
        return lses, (tile, shifted, divisors, *rows)

    def backward(
        self,
        queries: Array,
        keys: Array | None,
        scale: Any,
        kept: Any,
        upstream: Sequence[Array],
        grad_queries: Array,
        grad_keys: Array | None,
    ) -> None:
        """Add the gradients to those that are there; without keys one, of both together."""
        tile, shifted, divisors, query_rows, key_rows = kept
        gain = 1.0 if shifted else math.exp(_range.lift(float(scale)))
        sides = [
            Side(*tensors(g if shifted else g * gain / divisor, divisor if shifted else None))
            for g, divisor in zip(upstream, divisors, strict=True)
        ]
        column = sides[0] if keys is None else sides[1] if self.columns else None
        weight = weights(tile, sides[0], column, shifted)
        factor = _range.weight_scale(float(scale), shifted)
        by_query, by_key = tensors(grad_queries, grad_keys)
        by_query.addmm_(weight, query_rows if keys is None else key_rows, alpha=factor)
        if by_key is not None:
            by_key.addmm_(weight.t(), query_rows, alpha=factor)


def stacked(arrays: Sequence[Tensor]) -> Array:
    """The rows of all tensors as an array."""
    return as_array(torch.cat(tuple(arrays)))


def as_array(x: Tensor) -> Array:
    """NumPy has no bfloat16."""
    found: Array = (x.float() if x.dtype == torch.bfloat16 else x).numpy()
    return found


def tensors(*arrays: Array | None) -> list[Any]:
    """Of the same memory."""
    return [None if x is None else torch.from_numpy(x) for x in arrays]
