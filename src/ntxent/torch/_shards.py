"""The closed form over the shards of all processes: each against the own rows, one at a time.

Rows travel forward and again backward, gradients never: with upstream g and log-sum-exp L of the
own rows, and h, C of another process's, which are two numbers a row, a row's gradient

    dq_i = scale sum_k W_ik k_k        W_ik = g_i exp(S_ik - L_i) + h_k exp(S_ik - C_k)

is complete where the row is. That is 6 n d flops a row and direction of rows on one process: 2
forward, 4 backward, where a shard meets itself about half of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ntxent import _range
from ntxent._pairs import Side
from ntxent.torch._implementations import Implementation, serving
from ntxent.torch._processes import Processes
from ntxent.torch._tile import Found, Pairs

STRIP = 4096  # rows of the gradient that are made at a time, so as not to have all of it twice


class Shards(NamedTuple):
    """`_implementations.Implementation` over the shards of all processes, by another one."""

    across: Processes
    name: str | None

    def forward(self, pairs: Pairs, *, keep: bool) -> tuple[Found, Found | None, list[Tensor]]:
        """What is found along own rows and (if asked) along own columns."""
        del keep
        row = log_sum_exp(pairs, *self)
        return row, log_sum_exp(turned(pairs), *self) if pairs.columns else None, []

    def backward(
        self, pairs: Pairs, row: Side, column: Side | None, kept: Sequence[Tensor], by_keys: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The gradients of own queries and (if wanted) own keys; without keys one, of both."""
        del kept
        if pairs.keys is None:
            return gradient(pairs, row, row, *self), None
        by_query = gradient(pairs, row, column, *self)
        return by_query, gradient(turned(pairs), column, row, *self) if by_keys else None


def serving_across(pairs: Pairs, name: str | None, across: Processes | None) -> Implementation:
    """The implementation of this name, over the shards of all processes if there are several."""
    return serving(pairs, name) if across is None else Shards(across, name)


def turned(pairs: Pairs) -> Pairs:
    """Keys as queries and queries as keys."""
    return pairs._replace(queries=pairs.others, keys=pairs.queries, ids=pairs.ids[::-1])


def log_sum_exp(pairs: Pairs, across: Processes, name: str | None) -> Found:
    """Of each own query, over the keys of all processes."""
    pairs = ready(pairs, across)
    lse, summed = torch.full_like(pairs.queries[:, 0], -math.inf, dtype=torch.float64), False
    for own, (keys, ids) in across.shards(pairs.others, key_ids(pairs)):
        block = block_of(pairs, own, keys, ids)
        found = serving(block, name).forward(block, keep=False)[0]
        # In float64, and of sums where there are sums: a logarithm of 50 is off by 3e-6 in float32
        part = found.lse.double()
        if found.summed:
            part = found.divisor.double().log().masked_fill(part == -math.inf, -math.inf)
        lse, summed = torch.logaddexp(lse, part), found.summed
    divisor = (lse.exp() if summed else lse).masked_fill(lse == -math.inf, math.inf)
    dtype = pairs.queries.dtype
    return Found(lse.to(dtype), divisor.to(dtype), summed)


def ready(pairs: Pairs, across: Processes) -> Pairs:
    """With a shift in all blocks or in none, by the number of all keys."""
    rows, size = sum(across.sizes(pairs.others)), pairs.queries.element_size()
    unit = not _range.needs_shift(size, float(pairs.scale), rows, pairs.unit)
    return pairs._replace(unit=unit, columns=False)


def key_ids(pairs: Pairs) -> Tensor:
    """Those of the keys, whoever they are."""
    query_ids, key_ids = pairs.ids
    found: Tensor = query_ids if key_ids is None else key_ids
    return found


def block_of(pairs: Pairs, own: bool, keys: Tensor, ids: Tensor) -> Pairs:
    """Own queries against one shard: the triangular case where rows meet themselves."""
    if own and pairs.keys is None:
        return pairs
    return pairs._replace(keys=keys, ids=(pairs.ids[0], ids))


def gradient(
    pairs: Pairs,
    own_side: Side | None,
    other_side: Side | None,
    across: Processes,
    name: str | None,
) -> Tensor:
    """The gradient of own queries; a side that isn't there has no upstream."""
    pairs = ready(pairs, across)
    if own_side is None:
        nothing = torch.zeros_like(pairs.queries[:, 0])
        own_side = Side(nothing, nothing + math.inf)
    travelling = pairs.others, key_ids(pairs), *(other_side or ())
    total = torch.empty_like(pairs.queries)
    strips = range(0, total.shape[0], STRIP)
    for own, (keys, ids, *side) in across.shards(*travelling):
        block = block_of(pairs, own, keys, ids)
        column = Side(*side) if side and block.keys is not None else None
        if own:  # which comes first
            total = serving(block, name).backward(block, own_side, column, (), by_keys=False)[0]
            continue
        for first in strips:
            here = slice(first, first + STRIP)
            part = block._replace(queries=block.queries[here], ids=(block.ids[0][here], ids))
            row = Side(*(x[here] for x in own_side))
            total[here] += serving(part, name).backward(part, row, column, (), by_keys=False)[0]
    return total
