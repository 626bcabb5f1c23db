"""The hot operation in PyTorch, and which implementation serves.

`dense` (`dense.py`) is the matrix form under plain autograd: O(n^2) memory.
`tiled` (`tiled.py`) never holds the matrix: O(n d) memory and a bounded store of tiles. A batch of
one tile is served without the loop (`one_tile.py`).
`triton` (`_kernels/`) does the same on a CUDA GPU, where no tile leaves the chip.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ntxent._pairs.sides import Side, two_sides
from ntxent._spec import Options
from ntxent.torch._pairs.dense import dense
from ntxent.torch._pairs.excluded import Ids
from ntxent.torch._pairs.implementations import Choice, Implementation
from ntxent.torch._pairs.tile import Pairs
from ntxent.torch._processes.dense import dense_across
from ntxent.torch._processes.group import Group
from ntxent.torch._processes.shards import serving_across
from ntxent.torch._transforms import calls


def pair_logsumexp(
    queries: Any,
    keys: Any | None,
    scale: Any,
    query_ids: Tensor | int,
    key_ids: Tensor | int | None,
    options: Options,
    columns: bool = False,
) -> Any:
    """See `ntxent._protocol.Ops.pair_logsumexp`."""
    choice, across, unit = options.implementation, options.across, options.normalize
    keys, key_ids = two_sides(queries, keys, query_ids, key_ids, columns)
    ids: Ids = (query_ids, key_ids)
    if across is not None:
        ids = plain(ids)
    if choice.name == "dense":
        matrix: Any = dense if across is None else partial(dense_across, across)
        lse: Tensor = matrix(queries, keys, scale, *ids, columns)
        return lse
    inputs = queries, keys, scale
    if calls.active():
        return calls.pair_logsumexp(*inputs, ids, unit, columns, choice, across)
    lses, _ = ClosedPairs(ids, unit, columns, choice, across).forward(*inputs, keep=False)
    return lses[0] if len(lses) == 1 else torch.cat(lses)


class ClosedPairs(NamedTuple):
    """The operation and its gradient; it holds ids, and no rows."""

    ids: Ids
    unit: bool
    columns: bool
    choice: Choice
    across: Group | None

    def serving(
        self, queries: Tensor, keys: Tensor | None, scale: Any
    ) -> tuple[Pairs, Implementation]:
        """The pairs, and what serves them."""
        pairs = Pairs(queries, keys, scale, self.ids, self.unit, self.columns, self.choice.product)
        return pairs, serving_across(pairs, self.choice.name, self.across)

    def forward(
        self, queries: Tensor, keys: Tensor | None, scale: Any, keep: bool
    ) -> tuple[list[Tensor], Any]:
        """The log-sum-exps of rows, then of columns if asked; what the backward pass needs."""
        pairs, served = self.serving(queries, keys, scale)
        row, column, kept = served.forward(pairs, keep=keep)
        if column is None:
            return [row.lse], (row.divisor, None, kept)
        return [row.lse, column.lse], (row.divisor, column.divisor, kept)

    def backward(
        self,
        queries: Tensor,
        keys: Tensor | None,
        scale: Any,
        saved: Any,
        upstream: Sequence[Tensor],
        by_keys: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """The gradients of queries and (if wanted) keys; without keys one, of both together."""
        row, column, kept = saved
        pairs, served = self.serving(queries, keys, scale)
        sides = Side(upstream[0], row), None if column is None else Side(upstream[1], column)
        return served.backward(pairs, *sides, kept, by_keys)


def closed_pairs(query_ids: Any, key_ids: Any, columns: bool, options: Options) -> ClosedPairs:
    """The operation in closed form."""
    ids, across = (query_ids, key_ids), options.across
    ids = ids if across is None else plain(ids)
    return ClosedPairs(ids, options.normalize, columns, options.implementation, across)


def plain(ids: Ids) -> Ids:
    """Ids as all backends of `torch.distributed` take them; some lack the short integers."""
    query_ids, key_ids = (None if x is None else x.long() for x in ids)
    return query_ids, key_ids
