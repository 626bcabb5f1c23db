"""Compile every Triton kernel ahead of time, without a GPU, and read what the compiler made of it.

    python tests/kernels.py             the table, and a failure for a kernel that spills
    python tests/kernels.py --write     and put the table into docs/performance.md

Registers and bytes of spills are what ptxas reports, shared memory is Triton's, "matrices" are the
matrix instructions of the PTX. Seconds are those of the compilation on this machine.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

os.environ.pop("TRITON_INTERPRET", None)
os.environ["TRITON_ALWAYS_COMPILE"] = "1"  # what is cached has no report
os.environ["TRITON_DUMP_PTXAS_LOG"] = "1"
os.environ["TRITON_DEFAULT_FP_FUSION"] = "1"  # what it does by default, said aloud

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ntxent.torch._triton_backward import backward
from ntxent.torch._triton_blocks import Blocks, candidates, precision, whole
from ntxent.torch._triton_forward import forward

DTYPES = {"float32": ("fp32", "ieee"), "TF32": ("fp32", "tf32"), "bfloat16": ("bf16", "half")}
DTYPES["float16"] = ("fp16", "half")
DIMS = (16, 64, 128, 256, 512, 1024)
CAPABILITIES = {80: ("8.0", 163 * 1024), 90: ("9.0", 227 * 1024)}
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
HEAD = """\
| kernel | product | d | block | capability | registers | shared, KiB | spills, bytes | matrices |
|---|---|---|---|---|---|---|---|---|
"""


class Compiled(NamedTuple):
    """One line of the table."""

    kernel: str
    product: str
    dim: int
    blocks: Blocks
    capability: int
    registers: int
    shared: int
    spills: int
    instructions: str
    seconds: float

    def faults(self) -> list[str]:
        """Spills, too much shared memory, no tensor cores where they are meant."""
        _, room = CAPABILITIES[self.capability]
        found = [f"{self.spills} bytes of spills"] if self.spills and self.dim <= 256 else []
        found += [f"{self.shared} bytes of shared memory"] if self.shared > room else []
        if self.product != "float32" and not self.instructions:
            found.append("no tensor cores")
        return found

    def line(self) -> str:
        """Of the table."""
        cut = f"{self.blocks.rows} × {self.blocks.columns}, {self.blocks.warps} warps"
        capability = CAPABILITIES[self.capability][0]
        return (
            f"| {self.kernel} | {self.product} | {self.dim} | {cut} | {capability} | "
            f"{self.registers} | {self.shared / 1024:.0f} | {self.spills} | "
            f"{self.instructions or 'none'} |"
        )


def compiled(kernel: Any, product: str, dim: int, blocks: Blocks, capability: int) -> Compiled:
    """Compile a kernel as a launch with contiguous rows would."""
    dtype, kind = DTYPES[product]
    constants = {"BY_IDS": False, "PRECISION": precision(kind), **blocks.constants(dim)}
    if kernel is backward:
        constants |= {"BY_OWN": True, "BY_OTHERS": True, "OUT": min(blocks.out, whole(dim))}
    constants |= {"own_dim": 1, "other_dim": 1}
    signature, attributes = {}, {}
    for place, name in enumerate(kernel.arg_names):
        signature[name] = "constexpr" if name in constants else type_of(name, dtype)
        if signature[name].startswith("*") or name in {"own_row", "other_row", "dim"}:
            attributes[(place,)] = [["tt.divisibility", 16]]
    started, told = perf_counter(), io.StringIO()
    with contextlib.redirect_stdout(told):
        made = triton.compile(
            ASTSource(kernel, signature, constants, attributes),
            target=GPUTarget("cuda", capability, 32),
            options={"num_warps": blocks.warps, "num_stages": blocks.stages},
        )
    seconds, ptx = perf_counter() - started, made.asm["ptx"]
    instructions = next((name for name in ("wgmma", "mma.sync") if f"{name}." in ptx), "")
    registers, spills = used(told.getvalue())
    return Compiled(
        kernel.__name__, product, dim, blocks, capability, registers, made.metadata.shared,
        spills, instructions, seconds,
    )  # fmt: skip


def type_of(name: str, dtype: str) -> str:
    """Of an argument, as Triton writes it."""
    if name in {"own", "others"}:
        return f"*{dtype}"
    if name in {"own_ids", "other_ids"}:
        return "*i64"
    floats = {"scale", "found", "gain", "grad"}
    if name in floats or name.endswith(("_upstream", "_lse")):
        return "*fp32"
    return "i32"


def used(told: str) -> tuple[int, int]:
    """Registers of a thread, and bytes that are spilled and read again, as ptxas tells."""
    (registers,) = re.findall(r"Used (\d+) registers", told)
    return int(registers), sum(map(int, re.findall(r"(\d+) bytes spill", told)))


def everything(dims: tuple[int, ...]) -> Iterator[Compiled]:
    """All kernels with all the blocks that may be chosen."""
    for kernel in (forward, backward):
        for product, (_, kind) in DTYPES.items():
            for dim in dims:
                for blocks in candidates(kernel.__name__, kind, dim):
                    for capability in CAPABILITIES:
                        yield compiled(kernel, product, dim, blocks, capability)


def main() -> None:
    """Print the table as it is made; fail for a fault."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--write", action="store_true", help="also into docs/performance.md")
    parser.add_argument("--dims", type=int, nargs="+", default=DIMS, help="lengths of rows")
    options = parser.parse_args()
    print(HEAD, end="")
    lines, faults, seconds = [], [], []
    for found in everything(tuple(options.dims)):
        print(found.line(), flush=True)
        lines.append(found.line() + "\n")
        seconds.append(found.seconds)
        faults += [f"{found.line()}: {fault}" for fault in found.faults()]
    told = f"{len(lines)} kernels, at most {max(seconds):.1f} s each to compile."
    print(f"{told} {len(faults)} faults.")
    if options.write:
        text = PAGE.read_text(encoding="utf-8")
        table = "<!-- kernels -->\n" + HEAD + "".join(lines) + f"\n{told}\n<!-- /kernels -->"
        text = re.sub("<!-- kernels -->.*<!-- /kernels -->", lambda _: table, text, flags=re.DOTALL)
        PAGE.write_text(text, encoding="utf-8")
    sys.exit("\n".join(faults) if faults else 0)


if __name__ == "__main__":
    main()
