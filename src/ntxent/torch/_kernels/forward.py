"""The kernel of the forward pass: the log-sum-exp of each row's scores; none leaves the chip.

A program takes a block of rows past the columns of its share, with a running maximum where
exponentials need one (`ntxent._pairs.headroom`). There are as many shares as it takes to fill the
device, and their log-sum-exps are put together afterwards: no atomic operation, so that two runs
give the same bits.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ntxent.torch._kernels.scores import LOG2E, ids_of, mixed, rows_of, scores_of


@triton.jit(do_not_specialize=["rows", "columns", "period"])
def forward(
    own, rows, own_ids,
    others, columns, other_ids,
    dim, scale, period, found,
    SHIFTED: tl.constexpr, BY_IDS: tl.constexpr, PRECISION: tl.constexpr,
    WHOLE: tl.constexpr, DIM: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """found[share, row] = log of the sum over the share's columns of exp(score)."""
    place = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row = tl.minimum(place, rows - 1)  # past the end the last again, which is not stored
    share = tl.cdiv(tl.cdiv(columns, COLUMNS), tl.num_programs(1)) * COLUMNS
    begin = tl.program_id(1) * share
    factor = tl.load(scale) * LOG2E
    part = tl.arange(0, DIM)
    own_part = rows_of(own, row, part, rows, dim)
    ids = ids_of(own_ids, row, rows, period, BY_IDS)

    top = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
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
        if SHIFTED:
            higher = tl.maximum(top, tl.max(scores, 1))
            shift = tl.where(higher == -float("inf"), 0.0, higher)  # no pair yet
            total = total * tl.exp2(top - shift) + tl.sum(tl.exp2(scores - shift[:, None]), 1)
            top = higher
        else:
            total += tl.sum(tl.exp2(scores), 1)
    lse = tl.log2(total) / LOG2E
    if SHIFTED:
        lse += top / LOG2E
    tl.store(found + tl.program_id(1).to(tl.int64) * rows + place, lse, mask=place < rows)
