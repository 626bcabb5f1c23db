"""One batch over many processes: bytes on the wire and peak memory, predicted and counted.

    python -m benchmarks.scaling            W = 2, 4, 8 on this machine; the prediction beyond it
    python -m benchmarks.scaling --write    and put the tables into docs/scaling.md

Forward and backward of `ntxent.torch.nt_xent(z1, z2, group=True)` in float32. Bytes are those of
the loopback device between two barriers, over all processes; peaks are the resident memory above
what was there, inputs included, before the call.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from benchmarks import marks
from benchmarks.worker import give_back, reset_peak, status_mib
from benchmarks.world import world

MIB = 2**20
EXCHANGES = ("gather", "ring")
# rows in all, elements of a row, processes
CASES = [(8192, 256, processes) for processes in (2, 4, 8)]
WIDE = (16384, 1024, 2)
BEYOND = (2**20, 512, 64)
WAIT_S = 600  # for a step of the largest batch, of many processes on few cores


class Predicted(NamedTuple):
    """Of one process: NT-Xent, forward and backward, float32."""

    sent: float  # MiB
    exchanged: float  # MiB of other processes' rows that it holds
    flops: float


def predicted(rows: int, dim: int, processes: int, exchange: str) -> Predicted:
    """A row is d floats and an id of 8 bytes; backward, 12 more. Each shard goes round."""
    from ntxent.torch._processes import group

    shard = rows / processes
    forward, backward = 4 * dim + 8, 4 * dim + 20
    piece = min(shard * backward, group.PIECE_BYTES)
    return Predicted(
        sent=(processes - 1) * shard * (forward + backward) / MIB,
        exchanged=(rows * backward if exchange == "gather" else 2 * piece) / MIB,
        # 2 forward, 4 backward; half of what a shard makes of itself is its mirror image
        flops=6 * shard * rows * dim - 2 * shard**2 * dim,
    )


class Measured(NamedTuple):
    """Of one process (the mean of bytes, the largest peak and time)."""

    sent: float  # MiB
    peak: float  # MiB
    seconds: float
    flops: float


def measured(rows: int, dim: int, processes: int, exchange: str) -> Measured:
    """One step in new processes."""
    found = world(processes, work, rows, dim, exchange, timeout=WAIT_S, wait=2 * WAIT_S)
    sent, peaks, seconds, flops = zip(*found, strict=True)
    return Measured(max(sent) / processes, max(peaks), max(seconds), max(flops))


def work(rank: int, rows: int, dim: int, exchange: str) -> list[float]:
    """What each process does: a small step to load what loads, then the one that counts."""
    import torch
    import torch.distributed as dist

    from ntxent.torch import nt_xent

    torch.manual_seed(rank)

    def step(images: int) -> list[float]:
        z1, z2 = (torch.randn(images, dim, requires_grad=True) for _ in range(2))
        give_back()
        before = reset_peak()
        dist.barrier()
        sent, started = loopback(), perf_counter()
        nt_xent(z1, z2, group=True, exchange=exchange).backward()
        seconds = perf_counter() - started
        dist.barrier()
        return [(loopback() - sent) / MIB, status_mib("VmHWM") - before, seconds]

    images = rows // dist.get_world_size() // 2
    step(64)
    found = step(images)
    with counted_flops() as flops:
        step(images)
    return [*found, flops.total]


def counted_flops() -> Any:
    """A context whose `total` is the operations of the matrix products within."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Flops(TorchDispatchMode):
        total = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if "addmm" in func.name():
                left, right = args[1:3]
                self.total += 2 * left.shape[0] * left.shape[1] * right.shape[1]
            return func(*args, **(kwargs or {}))

    return Flops()  # type: ignore[no-untyped-call]


def loopback() -> int:
    """Bytes that the loopback device has sent."""
    text = Path("/proc/net/dev").read_text(encoding="utf-8")
    found = re.search(r"^\s*lo:\s*(.*)$", text, re.MULTILINE)
    if found is None:
        msg = "no loopback device in /proc/net/dev, by which bytes are counted here"
        raise RuntimeError(msg)
    return int(found.group(1).split()[8])


def counters() -> str:
    """Predicted against counted."""
    heads = ["rows", "d", "processes", "exchange"]
    heads += ["sent, predicted", "counted", "GFLOP, predicted", "counted", "others' rows", "peak"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for rows, dim, processes in (*CASES, WIDE):
        for exchange in EXCHANGES:
            wanted = predicted(rows, dim, processes, exchange)
            found = measured(rows, dim, processes, exchange)
            lines.append(
                f"| {rows} | {dim} | {processes} | {exchange} | {wanted.sent:.1f} | "
                f"{found.sent:.1f} | {wanted.flops / 1e9:.1f} | {found.flops / 1e9:.1f} | "
                f"{wanted.exchanged:.0f} | {found.peak:.0f} |"
            )
            print(lines[-1], f" {found.seconds:.1f} s", flush=True)
            for what, counted, told in (
                ("bytes", found.sent, wanted.sent),
                ("operations", found.flops, wanted.flops),
            ):
                # what else goes over the loopback device; the diagonal's tiles, which are whole
                if not 0.99 < counted / told < 1.1:
                    msg = f"{what}: {counted / told:.3f} of what was predicted. {lines[-1]}"
                    raise AssertionError(msg)
    return "\n".join(lines)


def beyond() -> str:
    """What the formulas say of a batch that is not at hand."""
    rows, dim, processes = BEYOND
    lines = [
        f"| {rows:,} rows, d = {dim}, {processes} processes | gather | ring |",
        "|---|---|---|",
    ]
    both = [predicted(rows, dim, processes, exchange) for exchange in EXCHANGES]
    for name, values in (
        ("rows on a process", [f"{rows // processes:,}"] * 2),
        ("sent by a process, GiB", [f"{x.sent / 1024:.2f}" for x in both]),
        ("other processes' rows on it, MiB", [f"{x.exchanged:.0f}" for x in both]),
        ("floating-point operations, 10^12", [f"{x.flops / 1e12:.1f}" for x in both]),
    ):
        lines.append(f"| {name} | {' | '.join(values)} |")
    return "\n".join(lines)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--write", action="store_true", help="also into docs/scaling.md")
    options = parser.parse_args()
    tables = {"beyond": beyond(), "counters": counters()}
    print(*tables.values(), sep="\n\n")
    if options.write:
        marks.write("docs/scaling.md", **tables)


if __name__ == "__main__":
    main()
