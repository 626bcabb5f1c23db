"""Which blocks suit a GPU's kernels: every cut of a grid, compiled by all cores, then timed.

python -m benchmarks.gpu_blocks                         every product, d = 128 and 512
python -m benchmarks.gpu_blocks --products half --dims 128

The short lists of `src/ntxent/torch/_kernels/block_lists.py` are chosen from what it prints: the
fastest cuts of NT-Xent's two kernels at so many rows, in milliseconds, and what each of the list
takes.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
import triton.testing

from ntxent._pairs.sides import Side
from ntxent.torch._kernels import launch
from ntxent.torch._kernels.block_lists import Blocks, whole
from ntxent.torch._kernels.blocks import candidates
from ntxent.torch._pairs.tile import Pairs

SHOWN = 6


def grid(product: str, kernel: str, dim: int) -> Iterator[Blocks]:
    """All cuts that are tried: rows, columns, elements of a score and of a gradient."""
    backward = kernel == "backward"
    parts: tuple[int, ...]
    columns: tuple[int, ...]
    stages: tuple[int, ...]
    if product == "float32":
        parts, rows, columns, stages = (32,), (64, 128), (32, 64, 128), (1, 2, 3)
    elif dim > 128:
        parts, rows, columns, stages = (64, 128), (64, 128), (32, 64, 128), (2, 3)
    else:
        parts, rows, columns, stages = (dim,), (64, 128), (32, 64, 128), (1, 2, 3, 4)
    outs: tuple[int, ...] = (0,)
    if backward:
        outs = (128, 256) if dim > 128 else (dim,)
    for choice in itertools.product(rows, columns, parts, outs, (4, 8), stages):
        blocks = Blocks(*choice)
        if blocks.rows * max(blocks.columns, blocks.out) <= 64 * 256 * (blocks.warps // 4):
            yield blocks


def run(
    product: str, kernel: str, dim: int, rows: int, blocks: Blocks, device: str = "cuda"
) -> Callable[[], object]:
    """A launch of a kernel, to be called again."""
    torch.set_float32_matmul_precision("highest" if product == "float32" else "high")
    launch.choose = lambda *_: blocks  # type: ignore[attr-defined]
    dtype = torch.bfloat16 if product == "half" else torch.float32
    values = torch.nn.functional.normalize(torch.randn(rows, dim, device=device)).to(dtype)
    pairs = Pairs(values, None, 10.0, (rows // 2, None), True, False)
    own, _ = launch.both(pairs)
    if kernel == "forward":
        return lambda: launch.log_sum_exp(pairs, own, own)
    upstream, lse = (torch.full((rows,), x, device=device) for x in (1.0 / rows, 10.0))
    gain, side, _ = launch.with_headroom(pairs, Side(upstream, lse), None)
    return lambda: launch.gradient(pairs, own, side, own, side, gain)


def compiled(product: str, kernel: str, dim: int, blocks: Blocks) -> str:
    """Why a cut can't serve, empty if it can; what was compiled stays on disk."""
    try:
        run(product, kernel, dim, 256, blocks)()
        torch.cuda.synchronize()
    except Exception as error:  # noqa: BLE001 - whatever the compiler or the device says
        return str(error).split("\n", 1)[0][:60]
    return ""


def main() -> None:
    """Compile all, time all, print the fastest."""
    parser = argparse.ArgumentParser("python -m benchmarks.gpu_blocks")
    parser.add_argument("--products", nargs="+", default=["half", "tf32", "float32"])
    parser.add_argument("--kernels", nargs="+", default=["forward", "backward"])
    parser.add_argument("--dims", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--rows", type=int, default=16384)
    options = parser.parse_args()
    groups = list(itertools.product(options.products, options.kernels, options.dims))
    workers = max(1, (os.cpu_count() or 2) - 2)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        under_way = {}
        for product, kernel, dim in groups:
            shipped = [
                b._replace(dim=min(b.dim, whole(dim)), out=min(b.out, whole(dim)))
                for b in candidates(kernel, product, dim, torch.cuda.get_device_capability())
            ]
            for blocks in dict.fromkeys([*shipped, *grid(product, kernel, dim)]):
                key = (product, kernel, dim, blocks)
                under_way[key] = (pool.submit(compiled, *key), blocks in shipped)
        for group in groups:
            tell(
                *group,
                options.rows,
                {
                    key[3]: shipped
                    for key, (future, shipped) in under_way.items()
                    if key[:3] == group and not future.result()
                },
            )


def tell(product: str, kernel: str, dim: int, rows: int, cuts: dict[Blocks, bool]) -> None:
    """Time what was compiled and print the fastest, and all of the list."""
    taken = {
        blocks: float(
            triton.testing.do_bench(
                run(product, kernel, dim, rows, blocks), warmup=5, rep=20, return_mode="median"
            )
        )
        for blocks in cuts
    }
    print(f"\n{kernel}, {product}, d = {dim}, {rows} rows: {len(taken)} cuts")
    if not any(cuts.values()):
        sys.exit("None of the list ran: see what `compiled` says of it.")
    for place, blocks in enumerate(sorted(taken, key=taken.__getitem__)):
        if place < SHOWN or cuts[blocks]:
            listed = "  of the list" * cuts[blocks]
            print(f"{taken[blocks]:8.3f} ms  {tuple(blocks)}{listed}", flush=True)


if __name__ == "__main__":
    main()
