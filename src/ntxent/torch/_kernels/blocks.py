"""How the kernels are cut into blocks, and the choice between cuts by a measurement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import NamedTuple

import torch
import triton
from torch import Tensor
from triton import knobs
from triton.runtime.errors import OutOfResources

from ntxent.torch._kernels.block_lists import BACKWARD, FORWARD, Blocks, generation

INTERPRETED = [Blocks(64, 64, 128, 128, 1, 1)]


class Kind(NamedTuple):
    """What a choice of blocks is kept for."""

    kernel: str
    product: str
    dim: int
    by_ids: bool
    sides: tuple[bool, bool]  # with an upstream, of the backward kernel
    rows: int  # binary digits of their number: one choice serves up to twice as many
    columns: int  # likewise
    device: str
    capability: tuple[int, int]


CHOSEN: dict[Kind, Blocks] = {}
MARGIN = 0.95  # of the first one's time is what another must stay below


def precision(product: str, capability: tuple[int, int]) -> str:
    """What the kernels call it.

    Float32 on an H100: as three TF32 products of the factors' upper and lower bits. Its loss is up
    to 1.3e-7 / tau off, that of IEEE products 1e-7 / tau (docs/numerics.md); those have no matrix
    units and took 221 ms where the dense form takes 49 (N = 16384, d = 128).
    """
    if knobs.runtime.interpret:
        return "interpreted"
    if product != "float32":
        return "tf32"  # which half precision ignores
    return "tf32x3" if generation(capability) == (9, 0) else "ieee"


def product_of(rows: Tensor) -> str:
    """How rows are multiplied: float32 obeys `torch.set_float32_matmul_precision`."""
    if rows.element_size() == 2:
        return "half"
    return "float32" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def candidates(kernel: str, product: str, dim: int, capability: tuple[int, int]) -> list[Blocks]:
    """The short list that serves rows of so many elements."""
    if knobs.runtime.interpret:
        return INTERPRETED
    lists = {"forward": FORWARD, "backward": BACKWARD}[kernel]
    tables = lists[generation(capability)][product]
    return tables[min((longest for longest in tables if dim <= longest), default=max(tables))]


def capability_of(rows: Tensor) -> tuple[int, int]:
    """The device's; in the interpreter none matters."""
    return torch.cuda.get_device_capability(rows.device) if rows.is_cuda else (8, 0)


def kind_of(
    kernel: str,
    rows: Tensor,
    others: Tensor,
    by_ids: bool,
    sides: tuple[bool, bool] = (False, False),
) -> Kind:
    """The kind of a launch."""
    digits = rows.shape[0].bit_length(), others.shape[0].bit_length()
    return Kind(
        kernel,
        product_of(rows),
        rows.shape[1],
        by_ids,
        sides,
        *digits,
        str(rows.device),
        capability_of(rows),
    )


def choose(kind: Kind, run: Callable[[Blocks], object]) -> Blocks:
    """The fastest of the short list, measured at the first launch of this kind.

    Bits depend on the choice, and it on a measurement: where that may not be, the first one.
    """
    short = candidates(kind.kernel, kind.product, kind.dim, kind.capability)
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
    """By the median time of a few runs each, of those for which the device has the memory."""
    taken: dict[Blocks, float] = {}
    for blocks in short:
        try:
            taken[blocks] = milliseconds(partial(run, blocks))
        except OutOfResources:
            if blocks == short[-1] and not taken:
                raise
    first = next(iter(taken))
    # Launches too short to tell apart get the first, in every process of a job.
    return min(taken, key=lambda blocks: taken[blocks] * (MARGIN if blocks == first else 1))


def milliseconds(run: Callable[[], object]) -> float:
    """The median of five; of batches that fit in a cache, as they do where a loss is called.

    `triton.testing.do_bench` would clear the cache before each, with 256 MiB of its own.
    """
    run()  # compiles
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(5)]
    for start, stop in events:
        start.record()
        run()
        stop.record()
    torch.cuda.synchronize()
    return float(median(start.elapsed_time(stop) for start, stop in events))


def shares(rows: Tensor, others: Tensor) -> int:
    """Into how many shares to cut the columns, so that two programs a processor are at work."""
    processors = 4
    if rows.is_cuda:
        processors = torch.cuda.get_device_properties(rows.device).multi_processor_count
    blocks = triton.cdiv(rows.shape[0], 64)
    return int(max(1, min(2 * processors // blocks, triton.cdiv(others.shape[0], 64))))
