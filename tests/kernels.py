"""Compile every Triton kernel ahead of time, without a GPU, and read what the compiler made of it.

    python tests/kernels.py             the table; a fault fails, as at 8.0 a spill
    python tests/kernels.py --write     and put the table into docs/kernels.md

Registers and bytes of spills are what ptxas reports, shared memory is Triton's, "matrices" are the
matrix instructions of the PTX. Seconds are those of the compilation on this machine.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import os
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

os.environ.pop("TRITON_INTERPRET", None)
os.environ["TRITON_ALWAYS_COMPILE"] = "1"  # what is cached has no report
os.environ["TRITON_DUMP_PTXAS_LOG"] = "1"
os.environ["TRITON_DEFAULT_FP_FUSION"] = "1"  # what it does by default, said aloud

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from _benchmarks import marks
from ntxent.torch._kernels.backward import backward
from ntxent.torch._kernels.block_lists import Blocks, whole
from ntxent.torch._kernels.blocks import candidates, precision
from ntxent.torch._kernels.forward import forward

KERNELS = {"forward": forward, "backward": backward}
DTYPES = {"float32": ("fp32", "float32"), "TF32": ("fp32", "tf32"), "bfloat16": ("bf16", "half")}
DTYPES["float16"] = ("fp16", "half")
DIMS = (16, 32, 64, 128, 256, 512, 1024)
CAPABILITIES = {80: ("8.0", 163 * 1024), 90: ("9.0", 227 * 1024)}
HEAD = """\
| kernel | product | d | capability | registers | shared memory, KiB | spills, bytes | matrices |
|---|---|---|---|---|---|---|---|
"""


class Launch(NamedTuple):
    """What is compiled: a kernel for pointers of a type, and constants."""

    kernel: str
    dtype: str
    capability: int
    blocks: Blocks
    constants: tuple[tuple[str, Any], ...]
    first: bool  # of its list


class Compiled(NamedTuple):
    """What the compiler made of a kernel."""

    registers: int
    shared: int
    spills: int
    instructions: str
    seconds: float


def launches(kernel: str, product: str, dim: int, capability: int) -> list[Launch]:
    """All that such rows may ask for: each block, shifted or not, ids or a period, one side or two.

    Rows of other lengths get the same kernels: d is an argument, a multiple of 16 by padding.
    """
    dtype, kind = DTYPES[product]
    choices = {"SHIFTED": (False, True), "BY_IDS": (False, True)}
    if kernel == "backward":
        choices |= {"BY_OWN": (True, False), "BY_OTHERS": (True, False)}
    found = []
    for place, blocks in enumerate(candidates(kernel, kind, dim, divmod(capability, 10))):
        fixed = {"PRECISION": precision(kind, divmod(capability, 10)), **blocks.constants(dim)}
        if kernel == "backward":
            fixed["OUT"] = min(blocks.out, whole(dim))
        for values in itertools.product(*choices.values()):
            constants = fixed | dict(zip(choices, values, strict=True))
            if constants.get("BY_OWN", True) or constants["BY_OTHERS"]:
                given = tuple(constants.items())
                found.append(Launch(kernel, dtype, capability, blocks, given, place == 0))
    return found


def compiled(launch: Launch) -> Compiled:
    """Compile a kernel as a launch would."""
    kernel, constants = KERNELS[launch.kernel], dict(launch.constants)
    signature, attributes = {}, {}
    for place, name in enumerate(kernel.arg_names):
        signature[name] = "constexpr" if name in constants else type_of(name, launch.dtype)
        if signature[name].startswith("*") or name == "dim":
            attributes[(place,)] = [["tt.divisibility", 16]]
    started, told = cpu_seconds(), io.StringIO()
    with contextlib.redirect_stdout(told):
        made = triton.compile(
            ASTSource(kernel, signature, constants, attributes),
            target=GPUTarget("cuda", launch.capability, 32),
            options={"num_warps": launch.blocks.warps, "num_stages": launch.blocks.stages},
        )
    seconds, ptx = cpu_seconds() - started, made.asm["ptx"]
    instructions = next((name for name in ("wgmma", "mma.sync") if f"{name}." in ptx), "none")
    registers, spills = used(told.getvalue())
    return Compiled(registers, made.metadata.shared, spills, instructions, seconds)


def cpu_seconds() -> float:
    """Of this process and of the assemblers that it started."""
    return sum(os.times()[:4])


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


def faults(launch: Launch, found: Compiled) -> list[str]:
    """Spills, too much shared memory, no tensor cores where they are meant."""
    room = CAPABILITIES[launch.capability][1]
    measured = launch.capability >= 90  # what is fastest there may spill a little
    wrong = [f"{found.spills} bytes of spills"] if found.spills and not measured else []
    if launch.first and not measured:  # what is taken unmeasured fits 8.6 and 12.0 too
        room = 99 * 1024
    wrong += [f"{found.shared} bytes of shared memory"] if found.shared > room else []
    if found.instructions == "none" and dict(launch.constants)["PRECISION"] != "ieee":
        wrong.append("no matrix instructions")
    return [f"{launch}: {fault}" for fault in wrong]


def line(kernel: str, product: str, dim: int, capability: int, made: list[Compiled]) -> str:
    """The largest of each number over all launches."""
    registers, shared, spills = (max(x[place] for x in made) for place in range(3))
    (instructions,) = {x.instructions for x in made}
    return (
        f"| {kernel} | {product} | {dim} | {CAPABILITIES[capability][0]} | "
        f"{registers} | {shared / 1024:.0f} | {spills} | {instructions} |"
    )


def main() -> None:
    """Print the table as it is made; fail for a fault."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--write", action="store_true", help="also into docs/kernels.md")
    parser.add_argument("--dims", type=int, nargs="+", default=DIMS, help="lengths of rows")
    options = parser.parse_args()
    print(HEAD, end="")
    lines = []
    table = itertools.product(KERNELS, DTYPES, options.dims, CAPABILITIES)
    wanted = {key: launches(*key) for key in table}
    with ProcessPoolExecutor() as pool:
        different = dict.fromkeys(itertools.chain.from_iterable(wanted.values()))
        under_way = {launch: pool.submit(compiled, launch) for launch in different}
        for key, asked in wanted.items():
            made = [under_way[launch].result() for launch in asked]
            lines.append(line(*key, made))
            print(lines[-1], flush=True)
    everything = {launch: found.result() for launch, found in under_way.items()}
    wrong = [fault for launch, found in everything.items() for fault in faults(launch, found)]
    slowest = max(found.seconds for found in everything.values())
    told = f"{len(everything)} kernels compiled, each in at most {slowest:.1f} s."
    print(f"{told} {len(wrong)} faults.")
    if options.write:
        marks.write("docs/kernels.md", kernels=HEAD + "\n".join([*lines, "", told]))
    sys.exit("\n".join(wrong) if wrong else 0)


if __name__ == "__main__":
    main()
