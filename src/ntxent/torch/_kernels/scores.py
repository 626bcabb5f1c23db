"""A tile of scores on the chip: what both kernels share.

Exponentials are of base 2, for which the chip has an instruction: scores come multiplied by
scale * log2(e), and log-sum-exps are of base 2 until they are stored.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)


@triton.jit
def rows_of(array, row, column, rows, dim):
    """The elements at (row, column), 0 past the end; offsets may pass 2^31."""
    offset = row.to(tl.int64)[:, None] * dim + column[None, :]
    inside = (row < rows)[:, None] & (column < dim)[None, :]
    return tl.load(array + offset, mask=inside, other=0.0)


@triton.jit
def ids_of(ids, row, rows, period, BY_IDS: tl.constexpr):
    """The ids of rows, or what a period says of them."""
    return tl.load(ids + row, mask=row < rows, other=0) if BY_IDS else row % period


@triton.jit
def dot(a, b, total, PRECISION: tl.constexpr):
    """total + a b, summed in float32."""
    if PRECISION == "interpreted":  # Triton's interpreter would multiply the bits of bfloat16
        found = tl.dot(a.to(tl.float32), b.to(tl.float32), total)
    else:
        found = tl.dot(a, b, total, input_precision=PRECISION)
    return found


@triton.jit
def mixed(
    own_first, other_first, columns, period,
    BY_IDS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Whether anything in a tile may not be a pair; most tiles do without masks.

    Ids that repeat with a period meet where a column less a row is a
    multiple of it.
    """
    found = True
    if not BY_IDS:
        ahead = other_first - own_first + tl.cdiv(own_first + ROWS, period) * period  # >= ROWS
        meet = (ahead + COLUMNS - 1) // period != (ahead - ROWS) // period
        found = meet | (other_first + COLUMNS > columns)
    return found


@triton.jit
def scores_of(
    own, own_part, row, rows, own_ids,
    others, other_part, column, columns, other_ids, some_missing,
    dim, factor, WHOLE: tl.constexpr, DIM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The tile's scores of base 2, -inf where there is no pair; its first parts are loaded.

    Float32's products are summed part by part: matrix units cut sums off and don't round them, and
    over a long row what they lose would be more than the loss's tolerance. The factor is between,
    as of `scores += dot(...)` the compiler makes one long sum.
    """
    BY_PARTS: tl.constexpr = PRECISION != "tf32"
    zeros = tl.zeros([own_part.shape[0], other_part.shape[0]], tl.float32)
    scores = dot(own_part, tl.trans(other_part), zeros, PRECISION)
    if BY_PARTS:
        scores *= factor
    if not WHOLE:
        for start in range(DIM, dim, DIM):
            part = start + tl.arange(0, DIM)
            queries = rows_of(own, row, part, rows, dim)
            keys = rows_of(others, column, part, columns, dim)
            if BY_PARTS:
                scores += dot(queries, tl.trans(keys), zeros, PRECISION) * factor
            else:
                scores = dot(queries, tl.trans(keys), scores, PRECISION)
    if not BY_PARTS:
        scores *= factor
    if some_missing:
        pairs = (column < columns)[None, :] & (own_ids[:, None] != other_ids[None, :])
        scores = tl.where(pairs, scores, -float("inf"))
    return scores
