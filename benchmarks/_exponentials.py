"""How many exponentials a second a GPU computes of numbers that it holds in registers."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

STEPS = 256
BLOCK = 1024


@triton.jit
def chain(out, STEPS: tl.constexpr, BLOCK: tl.constexpr):  # noqa: N803 - as Triton's own
    x = tl.arange(0, BLOCK) * 1e-3
    for _ in range(STEPS):
        x = tl.exp2(-x)
    tl.store(out + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), x)


def launch(numbers: int) -> None:
    """STEPS exponentials of each of so many numbers."""
    out = torch.empty(numbers, device="cuda")
    chain[triton.cdiv(numbers, BLOCK),](out, STEPS, BLOCK)
