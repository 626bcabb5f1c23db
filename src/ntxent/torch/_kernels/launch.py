"""Log-sum-exp over all pairs by two kernels: on a CUDA GPU, or in Triton's interpreter.

The kernels (`forward.py`, `backward.py`) take float32, bfloat16 or float16 rows and
sum in float32. A tile of scores lives in registers; memory beside inputs and gradients is O(n), and
a copy of the rows where they are lowered, rounded, scattered or of an odd length. Rows and columns,
queries and keys are served by the same kernels with their places changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.nn.functional import pad

from ntxent._pairs import headroom
from ntxent._pairs.sides import Side
from ntxent.torch._kernels import backward as backward_kernel
from ntxent.torch._kernels import forward as forward_kernel
from ntxent.torch._kernels.block_lists import Blocks, whole
from ntxent.torch._kernels.blocks import (
    capability_of,
    choose,
    kind_of,
    precision,
    product_of,
    shares,
)
from ntxent.torch._pairs.tile import Found, Pairs, found

# What the largest upstream is scaled to. A weight is at most twice that, within float16's 65504,
# and weights down to 4e-12 of the largest don't vanish, where they would at 6e-8 unscaled.
HEADROOM = 2.0**14


class Rows(NamedTuple):
    """Queries or keys, in the dtype of the product and as kernels read them."""

    values: Tensor
    ids: Tensor | None

    def arguments(self) -> tuple[Any, ...]:
        """As kernels take them; a pointer that isn't read, where a period stands for ids."""
        ids = self.values if self.ids is None else self.ids
        return self.values, self.values.shape[0], ids


def both(pairs: Pairs) -> tuple[Rows, Rows]:
    """Queries and keys."""
    ids = [x.contiguous() if isinstance(x, Tensor) else None for x in pairs.ids]
    queries = Rows(factors(pairs.queries, pairs.product), ids[0])
    return queries, queries if pairs.keys is None else Rows(
        factors(pairs.keys, pairs.product), ids[1]
    )


def factors(rows: Tensor, product: torch.dtype | None) -> Tensor:
    """Rows as they are multiplied.

    For TF32 they are rounded to its 10 bits here: matrix units cut the others off, by which all
    similarities shrink, and at N = 512, tau = 0.1 the loss was 4e-4 off.
    """
    rows = packed(rows.to(product or rows.dtype))
    if product_of(rows) != "tf32":
        return rows
    rounded = ((rows.view(torch.int32) + 2**12) & -(2**13)).view(torch.float32)
    return torch.where(rows.isfinite(), rounded, rows)


def packed(rows: Tensor) -> Tensor:
    """Rows one after another, zeros up to a multiple of 16 elements, the first at a multiple of 16.

    Of others the compiler makes loads of single elements, whose addresses don't fit in registers.
    """
    if rows.shape[1] % 16:
        return pad(rows, (0, -rows.shape[1] % 16))
    rows = rows.contiguous()
    return rows.clone() if rows.data_ptr() % 16 else rows


def common(pairs: Pairs) -> tuple[Tensor, int]:
    """Scale and period, as kernels take them."""
    scale, period = pairs.scale, pairs.ids[0]
    if not isinstance(scale, Tensor):
        scale = torch.full((), scale, dtype=torch.float32, device=pairs.queries.device)
    return scale.float(), 0 if isinstance(period, Tensor) else period


def forward(pairs: Pairs, *, keep: bool) -> tuple[Found, Found | None, list[Tensor]]:
    """What is found along rows and (if asked) columns; no tile is kept."""
    del keep
    queries, keys = both(pairs)
    column = log_sum_exp(pairs, keys, queries) if pairs.columns else None
    return log_sum_exp(pairs, queries, keys), column, []


def log_sum_exp(pairs: Pairs, own: Rows, others: Rows) -> Found:
    """Of the scores of each of one side's rows."""
    (rows, dim), (scale, period) = own.values.shape, common(pairs)
    parts = own.values.new_empty(shares(own.values, others.values), rows, dtype=torch.float32)

    def run(blocks: Blocks) -> None:
        forward_kernel.forward[triton.cdiv(rows, blocks.rows), len(parts)](
            *own.arguments(), *others.arguments(), dim, scale, period, parts,
            **constants(pairs, own, blocks), **options(blocks),
        )  # fmt: skip

    launch("forward", own, others, run)
    return found(parts[0] if len(parts) == 1 else parts.logsumexp(0), None, empties=True)


def backward(
    pairs: Pairs, row: Side, column: Side | None, kept: Sequence[Tensor], by_keys: bool
) -> tuple[Tensor, Tensor | None]:
    """The gradients of queries and (if wanted) keys; without keys one, of both together."""
    del kept
    queries, keys = both(pairs)
    gain, row, column = with_headroom(pairs, row, column)
    by_query = gradient(pairs, queries, row, keys, column, gain)
    return by_query, gradient(pairs, keys, column, queries, row, gain) if by_keys else None


def with_headroom(pairs: Pairs, row: Side, column: Side | None) -> tuple[Tensor, Side, Side | None]:
    """The sides with their upstream scaled to HEADROOM, and what gradients of them take."""
    sides = [row] if column is None else [row, column]
    # In float64, as an upstream gradient of 1e-36 has no float32 for the factor that it takes.
    largest = torch.stack(
        [torch.linalg.vector_norm(x.upstream, torch.inf, dtype=torch.float64) for x in sides]
    ).amax()
    factor = HEADROOM / largest.clamp(min=1e-300)  # of an upstream of zeros
    scale, _ = common(pairs)
    scaled = [Side((x.upstream.double() * factor).float(), x.divisor) for x in sides]
    own = scaled[0]
    other = own if pairs.keys is None else None if column is None else scaled[1]
    return (scale / factor).float(), own, other


def gradient(
    pairs: Pairs, own: Rows, own_side: Side | None, others: Rows, other_side: Side | None,
    gain: Tensor,
) -> Tensor:  # fmt: skip
    """The gradient of one side's rows; a side that isn't there has no upstream."""
    (rows, dim), (scale, period) = own.values.shape, common(pairs)
    own_given, other_given = (
        (own.values, own.values) if side is None else tuple(side) for side in (own_side, other_side)
    )
    sides = own_side is not None, other_side is not None
    count = shares(own.values, others.values)
    parts = own.values.new_empty(count, rows, dim, dtype=torch.float32)

    def run(blocks: Blocks) -> None:
        out = min(blocks.out, whole(dim))
        backward_kernel.backward[triton.cdiv(rows, blocks.rows), count, triton.cdiv(dim, out)](
            *own.arguments(), *own_given, *others.arguments(), *other_given, dim, scale, period,
            gain, parts, BY_OWN=sides[0], BY_OTHERS=sides[1], OUT=out,
            **constants(pairs, own, blocks), **options(blocks),
        )  # fmt: skip

    launch("backward", own, others, run, sides)
    grad = parts[0] if count == 1 else parts.sum(0)
    return grad[:, : pairs.queries.shape[1]].contiguous()


def launch(
    kernel: str, own: Rows, others: Rows, run: Callable[[Blocks], None],
    sides: tuple[bool, bool] = (False, False),
) -> None:  # fmt: skip
    """Run a kernel with the blocks that suit, on the rows' device, which may not be the current."""
    rows = own.values
    kind = kind_of(kernel, rows, others.values, own.ids is not None, sides)
    with torch.cuda.device(rows.device) if rows.is_cuda else nullcontext():
        run(choose(kind, run))


def constants(pairs: Pairs, own: Rows, blocks: Blocks) -> dict[str, Any]:
    """Of both kernels. A learned scale is not read, for which a GPU would have to wait."""
    scale, others = pairs.scale, max(pairs.queries.shape[0], pairs.others.shape[0])
    return {
        "SHIFTED": isinstance(scale, Tensor) or headroom.needs_shift(4, scale, others, pairs.unit),
        "BY_IDS": own.ids is not None,
        "PRECISION": precision(product_of(own.values), capability_of(own.values)),
        **blocks.constants(own.values.shape[1]),
    }


def options(blocks: Blocks) -> dict[str, Any]:
    """Of the compiler; fused products are its default, of which it would warn if left unsaid."""
    return {"num_warps": blocks.warps, "num_stages": blocks.stages, "enable_fp_fusion": True}
