"""What a step takes on cores that other programs use, and with more or fewer workers.

python -m benchmarks.busy            about three minutes on two cores
python -m benchmarks.busy --write    the same, and its table into docs/performance.md

A server, or a data loader, keeps cores at work while the loss is computed. As many processes as
there are cores do so here, for as long as one case is measured, and are ended by their ids.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks import marks, measure, peers, report
from benchmarks.cases import Case, Setting
from benchmarks.units import duration

IMAGES = 4096
FORMS = {
    "torch": ("eager_compiled", "ntxent"),
    "numpy": ("ntxent",),
}
LONGEST_S = 300  # after which a busy process ends by itself
SPIN = "import time\nend = time.monotonic() + {}\nwhile time.monotonic() < end: sum(range(9999))"
PAGE = "docs/performance.md"
HEAD = ["N = 4096", "threads", "idle", "busy", "busy / idle"]


def main() -> int:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser("python -m benchmarks.busy", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into its page")
    options = parser.parse_args()
    lines: list[list[str]] = []
    for library, forms in FORMS.items():
        for threads in sorted({1, cores(), 2 * cores()}):  # the last are more than fit
            setting = Setting(library, "nt_xent", IMAGES, threads=threads)
            served = forms if threads == cores() else forms[-1:]
            keys = tuple(f"{library}.{form}" for form in served)
            lines += compared(Case(setting, keys, budget_s=6.0))
    table = report.markdown(HEAD, lines, text_columns=1)
    print(table)
    if options.write:
        marks.write(PAGE, busy=table)
    return 0


def compared(case: Case) -> list[list[str]]:
    """A line for each form: alone, then beside busy processes."""
    found: list[dict[str, Any]] = []
    for busy in (False, True):
        with (
            others() if busy else contextlib.nullcontext(),
            measure.process("ceilings", case.setting) as ceilings,
        ):
            found.append(measure.in_turns(case, case.forms, ceilings)[0])
    lines = []
    for key in case.forms:
        idle, busy_ms = (float(np.median(answers[key]["times_ms"])) for answers in found)
        cells = [duration(idle), duration(busy_ms), f"{busy_ms / idle:.2f}"]
        lines.append([peers.FORMS[key].label, str(case.setting.threads), *cells])
        print(*lines[-1], flush=True)
    return lines


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def others() -> Iterator[None]:
    """Processes that keep every core at work until the block ends."""
    command = [sys.executable, "-c", SPIN.format(LONGEST_S)]
    children = [subprocess.Popen(command) for _ in range(cores())]
    try:
        yield
        if any(child.poll() is not None for child in children):
            sys.exit(f"A busy process ended before the case did: it may take {LONGEST_S} s.")
    finally:
        for child in children:
            child.kill()
            child.wait()


if __name__ == "__main__":
    sys.exit(main())
