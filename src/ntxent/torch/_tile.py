"""What holds for any tile of scores: when exp needs no shift, and the weights of its gradient.

With S = scale * Q K^T (excluded pairs at -inf) and upstream g (rows) and h (columns):

    row_lse_i = log sum_k exp(S_ik)            column_lse_k = log sum_i exp(S_ik)
    W_ik = g_i exp(S_ik - row_lse_i) + h_k exp(S_ik - column_lse_k)
    dQ = scale W K                             dK = scale W^T Q

Unshifted, W_ik = exp(S_ik) (r_i + c_k) with r = g exp(-row_lse), and exp(S_ik) is there already.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

# exp(score) needs no shift while exp(1.5 * room) fits: below 3e38 in float32, 1e308 in float64.
ROOM = {torch.float32: 56.0, torch.float64: 460.0}


class Side(NamedTuple):
    """The upstream and the log-sum-exp of the rows, or of the columns; later W's factor for them."""

    factor: Tensor
    lse: Tensor


def needs_shift(rows: Tensor, keys: int, scale: float, unit: bool) -> bool:
    """Whether a score, or a sum of exponentials of n of them, may leave the dtype's range."""
    return not (unit and scale + math.log(keys) <= ROOM[rows.dtype])


def prepared(side: Side, scale: float, shifted: bool) -> Side:
    """g as it is, or r = g exp(-lse) times exp(scale / 2) where no shift is needed.

    Where views are close g is small and exp(-lse) too, down to exp(-scale) / n for both: subnormal
    with a small upstream. exp(scale / 2) leaves as much room on either side; `alpha` takes it back.
    """
    upstream, lse = side
    if shifted:  # a row without any pair has lse = -inf; exp(-inf - inf) = 0
        return Side(upstream, lse.masked_fill(lse == -math.inf, math.inf))
    most = 1.5 * ROOM[lse.dtype]  # for the row without any pair: exp(most) * 0 = 0
    return Side(torch.rsub(lse, scale / 2).clamp_(max=most).exp_().mul_(upstream), lse)


def alpha(scale: float, shifted: bool) -> float:
    """The factor before `weights`: scale, without what `prepared` put in."""
    return scale if shifted else scale * math.exp(-scale / 2)


def weights(
    values: Tensor, row: Side, column: Side | None, shifted: bool, out: Tensor | None = None
) -> Tensor:
    """W from the exponentials of the scores, or from the scores if shifted."""
    factor = row.factor.unsqueeze(1)
    if not shifted:
        if column is None:
            return torch.mul(values, factor, out=out)
        return torch.add(factor, column.factor, out=out).mul_(values)
    out = torch.sub(values, row.lse.unsqueeze(1), out=out).exp_().mul_(factor)
    return out if column is None else out.addcmul_((values - column.lse).exp_(), column.factor)
