"""The losses on a CUDA GPU, against the dense form and the other libraries with kernels.

python -m benchmarks.gpu                                  every size that fits, float32 to bfloat16
python -m benchmarks.gpu --sizes 1024 16384 --dims 128    some
python -m benchmarks.gpu --device cpu --sizes 64          that the program runs, no GPU needed

First each of our values and gradients is held to float64. Then forward and backward are timed in
turns, medians of CUDA events, and the peak of allocated memory above the inputs is read. The last
column is the time that the binding ceiling alone would take over ours: 6 n^2 d floating-point
operations at the rate of a large matrix product of the same precision, or 2 n^2 exponentials at
their measured rate (n = 2N). `inf-cl` and `memeff` are timed where they are installed.
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
from importlib.util import find_spec
from typing import Any

import torch

from benchmarks import peers
from benchmarks.units import duration, size
from ntxent.torch import info_nce, nt_xent

SIZES = [1024, 4096, 16384, 32768, 131072]
TEMPERATURE = 0.1
# Of loss and gradient at N = 512, relative as in docs/numerics.md; it has where they come from.
BOUNDS = {"float32": (1e-6, 1e-5), "TF32": (1e-4, 1e-2), "bfloat16": (1e-3, 5e-2)}

Loss = Callable[[Any, Any], Any]


def forms(name: str) -> dict[str, Loss]:
    """What is timed for a loss: dense, dense compiled, ours, and who else is installed."""
    pasted = peers.FORMS["torch.clip" if name == "info_nce" else "torch.eager"].make()

    def dense(a: Any, b: Any) -> Any:
        return pasted(a, b, TEMPERATURE)

    found: dict[str, Loss] = {
        "dense": dense,
        "dense, compiled": torch.compile(dense, dynamic=False),
        "ntxent": lambda a, b: nt_xent(a, b, temperature=TEMPERATURE),
    }
    if name == "nt_xent":
        return found
    found["ntxent"] = lambda a, b: info_nce(a, b, temperature=TEMPERATURE, symmetric=True)
    if find_spec("inf_cl") is not None:
        from inf_cl import cal_inf_loss

        def inf(q: Any, k: Any) -> Any:
            q, k = (torch.nn.functional.normalize(x, dim=1) for x in (q, k))
            scale = 1 / TEMPERATURE
            return (cal_inf_loss(q, k, scale=scale) + cal_inf_loss(k, q, scale=scale)) / 2

        found["inf-cl"] = inf
    if find_spec("memeff") is not None:
        from memeff import MemoryEfficientCLIPLoss

        found["memeff"] = MemoryEfficientCLIPLoss(temperature=TEMPERATURE)
    return found


@contextlib.contextmanager
def precision(name: str, device: str) -> Iterator[None]:
    """How products are multiplied."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if name == "TF32" else "highest")
    try:
        with torch.autocast(device, torch.bfloat16, enabled=name == "bfloat16"):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def towers(rows: int, dim: int, device: str) -> list[Any]:
    """Random rows, the second tower near the first."""
    rng = torch.Generator(device).manual_seed(0)
    first, noise = torch.randn(2, rows, dim, generator=rng, device=device)
    return [x.requires_grad_() for x in (first, first + noise)]


def step(loss: Loss, inputs: list[Any]) -> list[Any]:
    """Value and gradients."""
    value = loss(*inputs)
    return [value.detach(), *torch.autograd.grad(value, inputs)]


def check(name: str, how: str, dim: int, device: str) -> str:
    """Our errors against float64; a RuntimeError if they are past the bounds."""
    inputs = towers(512, dim, device)
    with precision(how, device):
        value, *grads = step(forms(name)["ntxent"], inputs)
    truth, *exact = step(
        forms(name)["dense"], [x.detach().double().requires_grad_() for x in inputs]
    )
    errors = [
        abs(value / truth - 1).item(),
        max(
            ((a - b).abs().max() / b.abs().max()).item() for a, b in zip(grads, exact, strict=True)
        ),
    ]
    told = f"{name}, {how}, d = {dim}: loss {errors[0]:.0e}, gradient {errors[1]:.0e}"
    if not all(error <= bound for error, bound in zip(errors, BOUNDS[how], strict=True)):
        msg = f"{told}; expected at most {BOUNDS[how]}."
        raise RuntimeError(msg)
    return told


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
) -> dict[str, tuple[float, int]]:
    """The median time and the peak memory of each form that has the memory it needs."""
    times: dict[str, list[float]] = {}
    peaks = {}
    with precision(how, device):
        for name, loss in losses.items():
            with contextlib.suppress(torch.cuda.OutOfMemoryError):
                step(loss, inputs)  # compiles, and measures blocks
                peaks[name] = peak(loss, inputs, device)
                times[name] = []
        for _ in range(repeats):
            for name, taken in times.items():
                taken.append(seconds(partial(step, losses[name], inputs), device))
    return {name: (statistics.median(taken), peaks[name]) for name, taken in times.items()}


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


def ceiling(name: str, rows: int, dim: int, products: float, exponentials: float) -> float:
    """Seconds that the work cannot go below, by the counts at the top of this page."""
    pairs = (2 * rows) ** 2 if name == "nt_xent" else rows**2
    passes = 6 if name == "nt_xent" else 12  # two directions and two gradients
    return max(passes * pairs * dim / products, passes / 3 * pairs / exponentials)


def main() -> None:
    """Check, then time and print a table."""
    parser = argparse.ArgumentParser("python -m benchmarks.gpu")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--dims", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    device = options.device
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch sees no CUDA device; --device cpu tries the program itself.")
    where = torch.cuda.get_device_name() if device == "cuda" else "cpu, which shows no speed"
    print(f"{where}, torch {torch.__version__}, τ = {TEMPERATURE}, forward and backward\n")
    exponentials = exponential_rate(device)
    columns = list(forms("info_nce"))
    head = ["loss", "product", "d", "N", *columns, "ceiling / ntxent"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name, how, dim in itertools.product(("nt_xent", "info_nce"), BOUNDS, options.dims):
        print(check(name, how, dim, device), flush=True)
        products = product_rate(how, device)
        for rows in options.sizes:
            inputs = towers(rows, dim, device)
            found = measured(forms(name), inputs, how, device, options.repeats)
            floor = ceiling(name, rows, dim, products, exponentials)
            share = f"{floor / found['ntxent'][0]:.0%}" if "ntxent" in found else "–"
            cells = [name, how, str(dim), str(rows), *(text(found.get(x)) for x in columns), share]
            lines.append(f"| {' | '.join(cells)} |")
    print("\n" + "\n".join(lines))


def text(found: tuple[float, int] | None) -> str:
    """Time and memory, or a dash."""
    return "–" if found is None else f"{duration(1e3 * found[0])}, {size(found[1] / 2**20)}"


if __name__ == "__main__":
    main()
