"""The kernel of the backward pass: the gradient of one side's rows, tiles made again on the chip.

With upstream g, log-sum-exp L of the side's own rows, and h, C of the other side's:

    W_ik = g_i exp(S_ik - L_i) + h_k exp(S_ik - C_k)        gradient_i = scale sum_k W_ik other_k

which is exp(S_ik) (g_i exp(-L_i) + h_k exp(-C_k)), one exponential, where none needs a shift. For
the gradient of the keys the two sides change places, and the formula stays the same. Where both
sides are the same rows, so are g and h, and this one gradient is all of it. Each program has rows,
elements of the gradient and a share of the columns to itself: no atomic operation.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ntxent.torch._kernels.scores import LOG2E, dot, ids_of, mixed, rows_of, scores_of


@triton.jit(do_not_specialize=["rows", "columns", "period"])
def backward(
    own, rows, own_ids, own_upstream, own_lse,
    others, columns, other_ids, other_upstream, other_lse,
    dim, scale, period, gain, grad,
    BY_OWN: tl.constexpr, BY_OTHERS: tl.constexpr, OUT: tl.constexpr,
    SHIFTED: tl.constexpr, BY_IDS: tl.constexpr, PRECISION: tl.constexpr,
    WHOLE: tl.constexpr, DIM: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """grad[share, row] = gain times the sum over the share's columns of W_ik other_k."""
    place = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row = tl.minimum(place, rows - 1)  # past the end the last again, which is not stored
    share = tl.cdiv(tl.cdiv(columns, COLUMNS), tl.num_programs(1)) * COLUMNS
    begin = tl.program_id(1) * share
    factor = tl.load(scale) * LOG2E
    part = tl.arange(0, DIM)
    here = tl.program_id(2) * OUT + tl.arange(0, OUT)  # the elements of the gradient
    own_part = rows_of(own, row, part, rows, dim)
    ids = ids_of(own_ids, row, rows, period, BY_IDS)
    if BY_OWN:
        g = tl.load(own_upstream + row)
        own_top = tl.load(own_lse + row) * LOG2E
        if not SHIFTED:
            g *= tl.exp2(-own_top)

    total = tl.zeros([ROWS, OUT], tl.float32)
    for first in range(begin, tl.minimum(begin + share, columns), COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        other_part = rows_of(others, column, part, columns, dim)
        scores = scores_of(
            own, own_part, row, rows, ids,
            others, other_part, column, columns,
            ids_of(other_ids, column, columns, period, BY_IDS),
            mixed(tl.program_id(0) * ROWS, first, columns, period, BY_IDS, ROWS, COLUMNS),
            dim, factor, WHOLE, DIM, PRECISION,
        )  # fmt: skip
        if BY_OTHERS:
            h = tl.load(other_upstream + column, mask=column < columns, other=0.0)
            top = tl.load(other_lse + column, mask=column < columns, other=float("inf")) * LOG2E
            if not SHIFTED:
                h *= tl.exp2(-top)
        weights = tl.zeros([ROWS, COLUMNS], tl.float32)
        if SHIFTED:
            if BY_OWN:
                weights += tl.exp2(scores - own_top[:, None]) * g[:, None]
            if BY_OTHERS:
                weights += tl.exp2(scores - top[None, :]) * h[None, :]
        else:
            if BY_OWN:
                weights += g[:, None]
            if BY_OTHERS:
                weights += h[None, :]
            weights *= tl.exp2(scores)
        if not WHOLE:
            other_part = rows_of(others, column, here, columns, dim)
        weights = weights.to(other_part.dtype)
        total = dot(weights, other_part, total, PRECISION)
    offset = (tl.program_id(1).to(tl.int64) * rows + place.to(tl.int64))[:, None] * dim
    inside = (place < rows)[:, None] & (here < dim)[None, :]
    tl.store(grad + offset + here[None, :], total * tl.load(gain), mask=inside)
