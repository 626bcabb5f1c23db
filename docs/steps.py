"""The code of docs/from-formula-to-fast-code.md: its functions, to time or draw with.

python docs/steps.py            time and memory of its steps (a minute)
python docs/steps.py --write    the same, written into the page
"""

from __future__ import annotations

import os
import re
import sys
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

PAGE = Path(__file__).with_name("from-formula-to-fast-code.md")
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)

DIM, TEMPERATURE = 128, 0.1
LOOPS_UP_TO = 256  # images; four times as many would take them sixteen times as long
SIZES = {64: 21, 256: 11, 1024: 7, 4096: 5}  # images, and how often each form is timed
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def blocks(text: str) -> list[tuple[str, str]]:
    """Every python block of the page and the text block under it, what it prints."""
    return BLOCK.findall(text)


def steps() -> dict[str, Any]:
    """The page's functions: its blocks run from the top, down to the library's own call."""
    space: dict[str, Any] = {"print": lambda *_, **__: None}
    for code, _ in blocks(PAGE.read_text()):
        if "import nt_xent" in code:
            break
        exec(compile(code, PAGE.name, "exec"), space)  # noqa: S102 - the page is ours
    return space


def forms(images: int) -> dict[str, Callable[[], Any]]:
    """What is compared, each a call without arguments; no loops where they would take too long."""
    import numpy as np

    from ntxent.numpy import nt_xent, value_and_grad

    def library(first: Any, second: Any, tau: float) -> Any:
        return value_and_grad(nt_xent)(first, second, temperature=tau)

    rng = np.random.default_rng(0)
    views = rng.standard_normal((2, images, DIM), dtype=np.float32)
    page = steps()
    found = {
        "loops": page["loops"],
        "matrix": page["matrix_and_gradient"],
        "tiles": page["tiled"],
        "library": library,
    }
    if images > LOOPS_UP_TO:
        del found["loops"]
    return {name: partial(form, *views, TEMPERATURE) for name, form in found.items()}


def times(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """The median time of each in ms, that the processor spent on it.

    They take turns, so that a busy moment hits all alike.
    """
    passed: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.process_time_ns()
            call()
            passed[name].append((time.process_time_ns() - start) * 1e-6)
    return {name: median(found) for name, found in passed.items()}


def peak(call: Callable[[], Any]) -> float:
    """The most memory that was allocated at once during the call, in MiB."""
    tracemalloc.start()
    call()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most / 2**20


def reading(ms: float) -> str:
    """Two digits and a unit."""
    if ms >= 1000:
        return f"{ms / 1000:.1f} s"
    return f"{ms:.{2 if ms < 1 else 1 if ms < 10 else 0}f} ms"


def row(images: int, repeats: int) -> str:
    """A line of the table."""
    calls = forms(images)
    took = times(calls, repeats)
    cells = [reading(took["loops"]) if "loops" in took else "–"]
    for name in ("matrix", "tiles", "library"):
        cells.append(f"{reading(took[name])}, {peak(calls[name]):.{1 if images < 256 else 0}f} MiB")
    cells.append(f"{took['matrix'] / took['tiles']:.1f}×")
    return f"| {images} | {' | '.join(cells)} |"


def table() -> str:
    """The table in Markdown."""
    import numpy as np

    head = "| N | loops, loss alone | matrix | tiles | `ntxent.numpy` | matrix : tiles |"
    note = (
        "Loss and gradients: median processor time on one thread, and the most memory in use at\n"
        f"once. float32, d = {DIM}, τ = {TEMPERATURE}, NumPy {np.__version__}."
    )
    lines = [head, "|--:|--:|--:|--:|--:|--:|", *(row(*size) for size in SIZES.items())]
    return "\n".join([*lines, "", note])


def main() -> None:
    """Print the table, and write it into the page if asked to."""
    os.environ |= ONE_THREAD  # before NumPy comes, which reads it
    found = table()
    print(found)
    if "--write" in sys.argv:
        sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` lies
        from benchmarks import marks

        marks.write(PAGE, steps=found)


if __name__ == "__main__":
    main()
