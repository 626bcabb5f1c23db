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

from ntxent._pairs.sides import Side
from ntxent.torch._pairs.implementations import Implementation, divides_by_sums, serving
from ntxent.torch._pairs.tile import Found, Pairs, log
from ntxent.torch._processes.group import Group

STRIP = 4096  # rows of the gradient that are made at a time, so as not to have all of it twice


class Shards(NamedTuple):
    """`Implementation` over the shards of all processes, by another one."""

    across: Group
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


def serving_across(pairs: Pairs, name: str | None, across: Group | None) -> Implementation:
    """The implementation of this name, over the shards of all processes if there are several."""
    return serving(pairs, name) if across is None else Shards(across, name)


def turned(pairs: Pairs) -> Pairs:
    """Keys as queries and queries as keys."""
    return pairs._replace(queries=pairs.others, keys=pairs.queries, ids=pairs.ids[::-1])


def log_sum_exp(pairs: Pairs, across: Group, name: str | None) -> Found:
    """Of each own query, over the keys of all processes.

    The divisor is its logarithm in float64, whatever the blocks divide by: each side of a block may
    need a shift where the other needs none. In float32 a logarithm of 50 is off by 3e-6.
    """
    lse = torch.full_like(pairs.queries[:, 0], -math.inf, dtype=torch.float64)
    for own, (keys, ids) in across.shards(pairs.others, key_ids(pairs)):
        block = block_of(pairs, own, keys, ids)
        found = serving(block, name).forward(block, keep=False)[0]
        part = found.lse.double()
        if divides_by_sums(block, name):
            part = log(found.divisor.double()).masked_fill(part == -math.inf, -math.inf)
        lse = torch.logaddexp(lse, part)
    return Found(lse.to(pairs.queries.dtype), lse.masked_fill(lse == -math.inf, math.inf))


def key_ids(pairs: Pairs) -> Tensor:
    """Those of the keys, whoever they are."""
    query_ids, key_ids = pairs.ids
    found: Tensor = query_ids if key_ids is None else key_ids
    return found


def block_of(pairs: Pairs, own: bool, keys: Tensor, ids: Tensor) -> Pairs:
    """Own queries against one shard: the triangular case where rows meet themselves."""
    pairs = pairs._replace(columns=False)
    if own and pairs.keys is None:
        return pairs
    return pairs._replace(keys=keys, ids=(pairs.ids[0], ids))


def gradient(
    pairs: Pairs,
    own_side: Side | None,
    other_side: Side | None,
    across: Group,
    name: str | None,
) -> Tensor:
    """The gradient of own queries; a side that isn't there has no upstream."""
    if own_side is None:
        nothing = torch.zeros_like(pairs.queries[:, 0])
        own_side = Side(nothing, nothing + math.inf)
    parts: list[Tensor] = []
    for own, (keys, ids, *side) in across.shards(pairs.others, key_ids(pairs), *(other_side or ())):
        block, column = block_of(pairs, own, keys, ids), Side(*side) if side else None
        if own:  # which comes first: whole, for the triangular case
            whole = part_of_gradient(block, own_side, column, name)
            parts = list(whole.split(STRIP))
            continue
        for number, part in enumerate(parts):
            here = slice(number * STRIP, number * STRIP + STRIP)
            strip = block._replace(queries=block.queries[here], ids=(block.ids[0][here], ids))
            row = Side(*(x[here] for x in own_side))
            part.add_(part_of_gradient(strip, row, column, name))
    return whole


def part_of_gradient(block: Pairs, row: Side, column: Side | None, name: str | None) -> Tensor:
    """What one block has for the gradient of its queries."""
    by_sums = divides_by_sums(block, name)
    sides = [
        Side(side.upstream, (side.divisor.exp() if by_sums else side.divisor).to(block.queries))
        for side in (row, column)
        if side is not None
    ]
    column = sides[1] if column is not None and block.keys is not None else None
    return serving(block, name).backward(block, sides[0], column, (), by_keys=False)[0]
