"""A kernel that asks the kernels' own question of a tile; apart, as it needs Triton."""

from __future__ import annotations

import triton
import triton.language as tl

from ntxent.torch._kernels.scores import mixed


@triton.jit
def ask(found, own, other, columns, period, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # noqa: N803
    """found[0] = whether anything in the tile may not be a pair."""
    tl.store(found, mixed(own, other, columns, period, False, ROWS, COLUMNS).to(tl.int32))
