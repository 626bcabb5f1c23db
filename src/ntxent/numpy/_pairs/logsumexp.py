"""The hot operation in NumPy, dense and tiled, each with its closed-form gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ntxent._pairs.sides import Side
from ntxent._spec import Options
from ntxent.numpy._pairs import tiled
from ntxent.numpy._pairs.tiled import Array, Ids, similarities

IMPLEMENTATIONS: tuple[str, ...] = ("dense", "tiled")


class TiledPairs(NamedTuple):
    """`tiled.py` as the closed form calls it."""

    ids: tuple[Ids, Ids]
    unit: bool
    columns: bool

    def forward(
        self, queries: Array, keys: Array | None, scale: Any, keep: bool
    ) -> tuple[list[Array], Any]:
        """The log-sum-exps of rows, then of columns if asked; what the backward pass needs."""
        del keep
        pairs = tiled.Pairs(queries, keys, float(scale), self.ids, self.unit)
        found = tiled.forward(pairs, self.columns)
        lses = [lse for lse, _ in found if lse is not None]
        return lses, (pairs if pairs.alone else None, *(divisor for _, divisor in found))

    def backward(
        self,
        queries: Array,
        keys: Array | None,
        scale: Any,
        kept: Any,
        upstream: Sequence[Array],
        by_keys: bool,
    ) -> tuple[Array, Array | None]:
        """The gradients of queries and (if wanted) keys; without keys one, of both together."""
        pairs, row, column = kept
        pairs = pairs or tiled.Pairs(queries, keys, float(scale), self.ids, self.unit)
        other = None if column is None else Side(upstream[1], column)
        return tiled.backward(pairs, Side(upstream[0], row), other, by_keys)


class DensePairs(NamedTuple):
    """The matrix form: n^2 scores at once."""

    ids: tuple[Ids, Ids]
    columns: bool

    def scores(self, queries: Array, keys: Array | None, scale: Any) -> Array:
        """All of them, -inf for pairs that don't count."""
        others = queries if keys is None else keys
        found = np.empty((len(queries), len(others)), queries.dtype)
        similarities(queries, others, found)
        found *= queries.dtype.type(scale)
        left = as_ids(self.ids[0], queries)
        right = left if keys is None else as_ids(self.ids[1], keys)
        found[left[:, None] == right] = -math.inf
        return found

    def forward(
        self, queries: Array, keys: Array | None, scale: Any, keep: bool
    ) -> tuple[list[Array], Any]:
        """See `TiledPairs`."""
        found = self.scores(queries, keys, scale)
        lses = [logsumexp(found, axis) for axis in ((1, 0) if self.columns else (1,))]
        return lses, (found, *lses) if keep else ()

    def backward(
        self,
        queries: Array,
        keys: Array | None,
        scale: Any,
        kept: Any,
        upstream: Sequence[Array],
        by_keys: bool,
    ) -> tuple[Array, Array | None]:
        """See `TiledPairs`."""
        found, *lses = kept
        weight = np.exp(found - proper(lses[0])[:, None]) * upstream[0][:, None]
        if self.columns:
            weight += np.exp(found - proper(lses[1])) * upstream[1]
        weight *= queries.dtype.type(scale)
        if keys is None:
            return (weight + weight.T) @ queries, None
        return weight @ keys, weight.T @ queries if by_keys else None


def closed_pairs(
    query_ids: Ids, key_ids: Ids, columns: bool, options: Options
) -> TiledPairs | DensePairs:
    """The operation of the implementation that is asked for."""
    ids = query_ids, key_ids
    if options.implementation == "dense":
        return DensePairs(ids, columns)
    return TiledPairs(ids, options.normalize, columns)


def logsumexp(scores: Array, axis: int) -> Array:
    """Log-sum-exp below the maximum; -inf for a row without any pair."""
    top = scores.max(axis)
    shift = np.where(top == -math.inf, 0, top)
    lse: Array = shift + np.log(np.exp(scores - np.expand_dims(shift, axis)).sum(axis))
    return lse


def proper(lse: Array) -> Array:
    """inf for -inf, so that a row without any pair has weights exp(-inf - inf) = 0."""
    return np.where(lse == -math.inf, math.inf, lse)


def as_ids(ids: Ids, rows: Array) -> Array:
    """The ids that a period stands for: 0 ... P-1, over and over."""
    return np.arange(len(rows)) % ids if isinstance(ids, int) else np.asarray(ids)
