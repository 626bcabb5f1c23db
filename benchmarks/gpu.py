"""The losses on a CUDA GPU, against the dense form and the other libraries with kernels.

python -m benchmarks.gpu                                  every size that fits, float32 to bfloat16
python -m benchmarks.gpu --sizes 1024 16384 --dims 128    some
python -m benchmarks.gpu --write                          the stored rows into docs/performance.md
python -m benchmarks.gpu --device cpu --sizes 64          that the program runs, no GPU needed

First each of our values and gradients is held to float64. Then forward and backward are timed in
turns, medians of CUDA events, and the peak of allocated memory above the inputs is read. Rows go to
`benchmarks/results/gpu.csv` as they are measured. The floor is the time that the binding ceiling
alone would take: 6 n^2 d floating-point operations at the rate of a large matrix product of the
same precision, or 2 n^2 exponentials at their measured rate (n = 2N). `inf-cl` and `memeff` are
timed where they are installed.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_results, results
from benchmarks.gpu_forms import (
    BOUNDS,
    LOSSES,
    PEERS,
    Loss,
    check,
    errors,
    forms,
    precision,
    step,
    towers,
)

SIZES = [256, 1024, 4096, 16384, 32768, 131072]
LONG_S = 0.5  # a step from which on three are enough


def seconds(run: Callable[[], object], device: str) -> float:
    """Of one call."""
    if device == "cpu":
        started = time.perf_counter()
        run()
        return time.perf_counter() - started
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    stop.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(stop)) / 1e3


def measured(
    losses: dict[str, Loss], inputs: list[Any], how: str, device: str, repeats: int
) -> dict[str, tuple[list[float], int]]:
    """The times and the peak memory of each form that has the memory it needs."""
    times: dict[str, list[float]] = {}
    peaks = {}
    with precision(how, device):
        for name, loss in losses.items():
            with contextlib.suppress(torch.cuda.OutOfMemoryError):
                step(loss, inputs)  # compiles, and measures blocks
                peaks[name] = peak(loss, inputs, device)
                times[name] = []
        for turn in range(repeats):
            for name, taken in times.items():
                if turn < 3 or taken[-1] < LONG_S:
                    taken.append(seconds(partial(step, losses[name], inputs), device))
    return {name: (taken, peaks[name]) for name, taken in times.items()}


def peak(loss: Loss, inputs: list[Any], device: str) -> int:
    """Bytes above what is allocated before."""
    if device == "cpu":
        step(loss, inputs)
        return 0
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step(loss, inputs)
    return int(torch.cuda.max_memory_allocated() - before)


def product_rate(how: str, device: str) -> float:
    """Floating-point operations a second of a large matrix product."""
    side = 8192 if device == "cuda" else 512
    dtype = torch.bfloat16 if how == "bfloat16" else torch.float32
    a, b = torch.randn(2, side, side, device=device, dtype=dtype)
    with precision(how if how == "TF32" else "float32", device):
        taken = [seconds(lambda: a @ b, device) for _ in range(10)][3:]
    return 2 * side**3 / statistics.median(taken)


def exponential_rate(device: str) -> float:
    """Exponentials a second: on a GPU of numbers in registers."""
    if device == "cpu":
        x = torch.rand(2**22)
        return float(x.numel() / statistics.median([seconds(x.exp, device) for _ in range(5)]))
    from benchmarks._exponentials import STEPS, launch

    numbers = 2**24
    taken = [seconds(lambda: launch(numbers), device) for _ in range(10)][3:]
    return numbers * STEPS / statistics.median(taken)


def floor(name: str, rows: int, dim: int, products: float, exponentials: float) -> float:
    """Seconds that the work cannot go below, by the counts at the top of this page."""
    pairs = (2 * rows) ** 2 if name == "nt_xent" else rows**2
    passes = 6 if name == "nt_xent" else 12  # two directions and two gradients
    return max(passes * pairs * dim / products, passes / 3 * pairs / exponentials)


def main() -> None:
    """Check, then time, store and print; or write what is stored."""
    parser = argparse.ArgumentParser("python -m benchmarks.gpu")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=LOSSES)
    parser.add_argument("--products", nargs="+", choices=BOUNDS, default=list(BOUNDS))
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--dims", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--without", nargs="+", default=[], help="forms that are left out")
    parser.add_argument("--output", type=Path, help="another file than results/gpu.csv")
    parser.add_argument("--commit", help="of the sources, where git is not at hand")
    parser.add_argument("--write", action="store_true", help="the stored rows, measuring nothing")
    options = parser.parse_args()
    if options.write:
        gpu_results.write_page()
        return
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch sees no CUDA device; --device cpu tries the program itself.")
    path = options.output or (None if options.device == "cpu" else gpu_results.PATH)
    rows: list[gpu_results.Row] = []
    stored = results.read(path, gpu_results.Row) if path and path.exists() else []
    exponentials = exponential_rate(options.device)
    for name, how, dim in itertools.product(options.losses, options.products, options.dims):
        for row in group(name, how, dim, exponentials, options):
            rows.append(row)
            print(gpu_results.line(row), flush=True)
            if path:
                results.write(path, gpu_results.merged(stored, rows))
    print("\n" + gpu_results.tables(rows))


def group(
    name: str, how: str, dim: int, exponentials: float, options: argparse.Namespace
) -> Iterator[gpu_results.Row]:
    """All sizes of a loss in a precision."""
    device = options.device
    chosen = [form for form in forms(name) if form not in options.without]
    off: dict[str, tuple[float, float]] = {}
    failed: dict[str, str] = {}
    for form in chosen:
        if form == "compiled":  # as the dense form, of which it is made
            off[form] = off["dense"]
            continue
        try:
            off[form] = errors(forms(name)[form], name, how, dim, device)
        except Exception as error:
            if form not in PEERS:
                raise
            failed[form] = f"{type(error).__name__}: {error}".split("\n", 1)[0][:80]
    check(off["ntxent"], name, how, dim)
    products = product_rate(how, device)
    for size in options.sizes:
        torch.compiler.reset()
        losses = {form: forms(name)[form] for form in chosen if form not in failed}
        found = measured(losses, towers(size, dim, device), how, device, options.repeats)
        for form in chosen:
            yield gpu_results.make_row(
                (name, form, how, size, dim),
                found.get(form),
                floor(name, size, dim, products, exponentials),
                off.get(form, (None, None)),
                failed.get(form, "" if form in found else "out of memory"),
                options.commit,
            )


if __name__ == "__main__":
    main()
