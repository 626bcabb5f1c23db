"""How the kernels are cut into blocks, and the choice between cuts by a measurement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.testing
from torch import Tensor
from triton import knobs


class Blocks(NamedTuple):
    """What one program does at a time."""

    rows: int
    columns: int  # of a tile of scores
    dim: int  # elements of a row, for scores
    out: int  # elements of the gradient
    warps: int
    stages: int  # of the pipeline that loads ahead

    def constants(self, dim: int) -> dict[str, Any]:
        """Of both kernels, for rows of so many elements."""
        part = min(self.dim, whole(dim))
        return {"ROWS": self.rows, "COLUMNS": self.columns, "DIM": part, "WHOLE": dim <= part}


# By product, then by the longest row that they serve. `python tests/kernels.py` compiles them for
# everything that a launch may ask of them: none spills a register, or needs more shared memory than
# compute capability 8.0 has.
FORWARD = {
    "half": {
        128: [Blocks(128, 64, 128, 0, 8, 2), Blocks(64, 64, 128, 0, 4, 2)],
        256: [Blocks(128, 64, 256, 0, 8, 2), Blocks(64, 64, 256, 0, 4, 2)],
        1024: [Blocks(128, 64, 64, 0, 8, 3), Blocks(64, 64, 64, 0, 4, 2)],
    },
    "tf32": {
        128: [Blocks(128, 64, 128, 0, 8, 2), Blocks(64, 64, 128, 0, 4, 2)],
        1024: [Blocks(128, 64, 32, 0, 8, 3), Blocks(64, 64, 32, 0, 4, 2)],
    },
    "ieee": {1024: [Blocks(64, 32, 16, 0, 4, 1), Blocks(64, 64, 16, 0, 4, 1)]},
}
BACKWARD = {
    "half": {
        16: [Blocks(64, 64, 16, 16, 8, 2), Blocks(64, 32, 16, 16, 4, 2)],
        128: [Blocks(64, 64, 128, 128, 4, 2), Blocks(128, 64, 128, 128, 8, 2)],
        256: [Blocks(64, 64, 256, 256, 8, 2), Blocks(64, 32, 256, 256, 8, 2)],
        1024: [Blocks(64, 64, 64, 256, 8, 2), Blocks(64, 32, 64, 256, 8, 2)],
    },
    "tf32": {
        128: [Blocks(64, 64, 128, 128, 8, 1), Blocks(64, 32, 128, 128, 8, 2)],
        1024: [Blocks(64, 64, 32, 256, 8, 2), Blocks(64, 32, 32, 256, 8, 2)],
    },
    "ieee": {
        32: [Blocks(32, 32, 16, 32, 4, 2), Blocks(64, 32, 16, 32, 8, 2)],
        1024: [Blocks(32, 32, 16, 64, 4, 2), Blocks(32, 32, 16, 64, 4, 1)],
    },
}
INTERPRETED = [Blocks(64, 64, 128, 128, 1, 1)]


class Kind(NamedTuple):
    """What a choice of blocks is kept for."""

    kernel: str
    product: str
    dim: int
    by_ids: bool
    rows: int  # binary digits of their number: one choice serves up to twice as many
    columns: int  # likewise
    device: str


CHOSEN: dict[Kind, Blocks] = {}


def whole(dim: int) -> int:
    """A power of two that holds a row; matrix instructions take 16 elements at least."""
    return max(16, int(triton.next_power_of_2(dim)))


def precision(product: str) -> str:
    """What the kernels call it."""
    if knobs.runtime.interpret:
        return "interpreted"
    return "ieee" if product == "ieee" else "tf32"  # which half precision ignores


def product_of(rows: Tensor) -> str:
    """How rows are multiplied: float32 obeys `torch.set_float32_matmul_precision`."""
    if rows.element_size() == 2:
        return "half"
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def candidates(kernel: str, product: str, dim: int) -> list[Blocks]:
    """The short list that serves rows of so many elements."""
    if knobs.runtime.interpret:
        return INTERPRETED
    tables = {"forward": FORWARD, "backward": BACKWARD}[kernel][product]
    return tables[min((longest for longest in tables if dim <= longest), default=max(tables))]


def kind_of(kernel: str, rows: Tensor, others: Tensor, by_ids: bool) -> Kind:
    """The kind of a launch."""
    digits = rows.shape[0].bit_length(), others.shape[0].bit_length()
    return Kind(kernel, product_of(rows), rows.shape[1], by_ids, *digits, str(rows.device))


def choose(kind: Kind, run: Callable[[Blocks], object]) -> Blocks:
    """The fastest of the short list, measured at the first launch of this kind.

    Bits depend on the choice, and it on a measurement: where that may not be, the first one.
    """
    short = candidates(kind.kernel, kind.product, kind.dim)
    if len(short) == 1 or torch.are_deterministic_algorithms_enabled():
        return short[0]
    if kind not in CHOSEN:
        if capturing():
            return short[0]
        CHOSEN[kind] = fastest(short, run)
    return CHOSEN[kind]


def capturing() -> bool:
    """Whether a CUDA graph is recorded, in which nothing can be measured."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def fastest(short: Sequence[Blocks], run: Callable[[Blocks], object]) -> Blocks:
    """By the median time of a few runs each."""

    def time(blocks: Blocks) -> float:
        return float(triton.testing.do_bench(lambda: run(blocks), rep=30, return_mode="median"))

    return min(short, key=time)


def shares(rows: Tensor, others: Tensor) -> int:
    """Into how many shares to cut the columns, so that two programs a processor are at work."""
    processors = 4
    if rows.is_cuda:
        processors = torch.cuda.get_device_properties(rows.device).multi_processor_count
    blocks = triton.cdiv(rows.shape[0], 64)
    return int(max(1, min(2 * processors // blocks, triton.cdiv(others.shape[0], 64))))
