"""What holds for any tile of scores: the weights of its gradient.

With S = scale * Q K^T (excluded pairs at -inf) and upstream g (rows) and h (columns):

    row_lse_i = log sum_k exp(S_ik)            column_lse_k = log sum_i exp(S_ik)
    W_ik = g_i exp(S_ik - row_lse_i) + h_k exp(S_ik - column_lse_k)
    dQ = scale W K                             dK = scale W^T Q

Unshifted, W_ik = exp(S_ik) (r_i + c_k) with r_i = g_i / sum_k exp(S_ik), and exp(S_ik) is there. It
is computed as 2^(S_ik log2 e), which on a CPU takes a quarter of the time of exp.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ntxent._pairs import headroom
from ntxent._pairs.sides import Side
from ntxent.torch._pairs.excluded import Exclusion, Ids

LOG2E = 1 / math.log(2)


class Pairs(NamedTuple):
    """What every implementation is given; see `ntxent._protocol.Ops.pair_logsumexp`."""

    queries: Tensor
    keys: Tensor | None  # None: the queries themselves
    scale: float | Tensor
    ids: Ids
    unit: bool
    columns: bool
    product: torch.dtype | None = None  # of the scores' product, if not that of the rows

    @property
    def others(self) -> Tensor:
        """The keys, whoever they are."""
        return self.queries if self.keys is None else self.keys

    def shifted(self) -> bool:
        """Whether exponentials need a shift."""
        size, rows = self.queries.element_size(), self.others.shape[0]
        return headroom.needs_shift(size, float(self.scale), rows, self.unit)


class Found(NamedTuple):
    """A log-sum-exp, and what the backward pass divides exponentials by; see `Side`."""

    lse: Tensor
    divisor: Tensor


def filled_(
    tile: Tensor,
    queries: Tensor,
    keys: Tensor,
    scale: float,
    shifted: bool,
    excluded: Exclusion,
    row: int = 0,
    column: int = 0,
) -> Tensor:
    """The tile that stands at (row, column): its scores, their exponentials if unshifted."""
    factor = scale if shifted else scale * LOG2E
    torch.addmm(tile, queries, keys.T, beta=0, alpha=factor, out=tile)
    excluded.fill_(tile, row, column)
    return tile if shifted else tile.exp2_()


def log(sums: Tensor) -> Tensor:
    """The logarithm, not by MKL, whose threads would spin on the workers' cores for 6 ms."""
    found: Tensor = torch.xlogy(1.0, sums)
    return found


def found(lse: Tensor, sums: Tensor | None, empties: bool) -> Found:
    """The divisor is the sum, or the log-sum-exp if there is none.

    A row without any pair has the sum 0: its weights shall be 0 / inf, or exp(-inf - inf).
    """
    if not empties:
        return Found(lse, lse if sums is None else sums)
    divisor, nothing = (lse, -math.inf) if sums is None else (sums, 0)
    return Found(lse, divisor.masked_fill(divisor == nothing, math.inf))


def prepared(side: Side, scale: float, shifted: bool) -> Side:
    """g as it is if shifted, r = g exp(lift) / sum if not."""
    if shifted:
        return side
    upstream, sums = side
    return Side((upstream * math.exp(headroom.lift(scale))).div_(sums), sums)


def weights(
    values: Tensor, row: Side, column: Side | None, shifted: bool, out: Tensor | None = None
) -> Tensor:
    """W from the exponentials of the scores, or from the scores if shifted."""
    factor = row.upstream.unsqueeze(1)
    if not shifted:
        if column is None:
            return torch.mul(values, factor, out=out)
        return torch.add(factor, column.upstream, out=out).mul_(values)
    out = torch.sub(values, row.divisor.unsqueeze(1), out=out).exp_().mul_(factor)
    if column is None:
        return out
    return out.addcmul_((values - column.divisor).exp_(), column.upstream)
