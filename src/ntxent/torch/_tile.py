"""What holds for any tile of scores: the weights of its gradient.

With S = scale * Q K^T (excluded pairs at -inf) and upstream g (rows) and h (columns):

    row_lse_i = log sum_k exp(S_ik)            column_lse_k = log sum_i exp(S_ik)
    W_ik = g_i exp(S_ik - row_lse_i) + h_k exp(S_ik - column_lse_k)
    dQ = scale W K                             dK = scale W^T Q

Unshifted, W_ik = exp(S_ik) (r_i + c_k) with r = g exp(-row_lse), and exp(S_ik) is there already.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ntxent import _range
from ntxent._pairs import Side


def prepared(side: Side, scale: float, shifted: bool) -> Side:
    """g as it is if shifted, r = g exp(lift - lse) if not."""
    upstream, lse = side
    if shifted:  # a row without any pair has lse = -inf; exp(-inf - inf) = 0
        return Side(upstream, lse.masked_fill(lse == -math.inf, math.inf))
    exponent = torch.rsub(lse, _range.lift(scale))
    most = _range.most_exponent(lse.element_size())  # for the row without any: exp(most) * 0 = 0
    return Side(exponent.clamp_(max=most).exp_().mul_(upstream), lse)


def weights(
    values: Tensor, row: Side, column: Side | None, shifted: bool, out: Tensor | None = None
) -> Tensor:
    """W from the exponentials of the scores, or from the scores if shifted."""
    factor = row.upstream.unsqueeze(1)
    if not shifted:
        if column is None:
            return torch.mul(values, factor, out=out)
        return torch.add(factor, column.upstream, out=out).mul_(values)
    out = torch.sub(values, row.lse.unsqueeze(1), out=out).exp_().mul_(factor)
    return out if column is None else out.addcmul_((values - column.lse).exp_(), column.upstream)
