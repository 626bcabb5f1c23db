"""Plant one fault after the other in a copy of the package; the tests must find each.

    python tests/planted.py                     all of them
    python tests/planted.py ids exchange        some

A fault is one changed place. For each, the tests of its backend run as they do by default, until
the first that fails; that one is named. Its exit status is 1 if a fault was planted that no test
found, or none could be planted as the line it changes is no longer there. Before that, the tests
must pass with nothing planted.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Fault(NamedTuple):
    """A text of a file, what takes its place, and the backend whose tests shall see it."""

    file: str
    text: str
    instead: str
    backend: str


FAULTS = {
    "formula": Fault(
        "_formula.py",
        "return ops.contrast(lse, lse_positives) + spread",
        "return ops.contrast(lse, lse_positives)",
        "torch",
    ),
    "tile border": Fault(
        "jax/_pairs/tiles.py",
        "if plan.keys % plan.width:",
        "if plan.keys % plan.width > 1:",
        "jax",
    ),
    "shift": Fault("_pairs/headroom.py", "4: 46.0", "4: 92.0", "numpy"),
    "ids": Fault(
        "_pairs/places.py",
        "return a[0] <= b[1] and b[0] <= a[1]",
        "return a[0] < b[1] and b[0] < a[1]",
        "numpy",
    ),
    "upstream": Fault(
        "torch/_operations/autograd.py",
        "parts = torch._foreach_mul(parts, g)",
        "parts = torch._foreach_mul(parts, g.sign())",
        "torch",
    ),
    "temperature": Fault(
        "_closed_form/losses.py", "(rows * grad).sum() / sides", "(rows * grad).sum()", "numpy"
    ),
    "dtype": Fault(
        "torch/_operations/steps.py",
        "return (a * b).sum(1, dtype=torch.float64)",
        "return (a * b).sum(1).double()",
        "torch",
    ),
    "exchange": Fault(
        "torch/_processes/group.py",
        "size = sizes[(self.rank - step) % self.processes]",
        "size = sizes[(self.rank + step) % self.processes]",
        "torch",
    ),
    "column sums": Fault(
        "_closed_form/two_towers.py",
        "column = ops.column(push.sum(0) if symmetric else push)",
        "column = ops.column(2 * push[0] if symmetric else push)",
        "numpy",
    ),
    "masks": Fault(
        "tensorflow/_pairs/tiled.py", "tf.logical_or(*filling)", "filling[0]", "tensorflow"
    ),
}


def planted(fault: Fault, folder: Path) -> bool:
    """A copy of the package with the fault; whether its text was there, once."""
    shutil.copytree(ROOT / "src", folder, dirs_exist_ok=True)
    path = folder / "ntxent" / fault.file
    text = path.read_text()
    path.write_text(text.replace(fault.text, fault.instead))
    return text.count(fault.text) == 1


def failure(backend: str, folder: Path) -> str:
    """The first test of a backend that fails with the package in this folder, if any."""
    paths = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-showlocals", "--tb=no"]
    run = subprocess.run(
        [*command, "--backend", backend, "--numprocesses=auto", "--dist=worksteal"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    failed = re.search(r"^FAILED (.+?)(?: - .*)?$", run.stdout, re.MULTILINE)
    return failed[1] if failed and run.returncode else ""  # 2 of several processes, else 1


def sound(names: Sequence[str]) -> bool:
    """Whether the tests of these faults' backends pass where nothing is planted."""
    backends = {FAULTS[name].backend for name in names}
    return not any(failure(backend, ROOT / "src") for backend in sorted(backends))


def main() -> None:
    names, missed = sys.argv[1:] or [*FAULTS], False
    if not sound(names):
        sys.exit("the tests fail without any fault: what they would find says nothing.")
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            told = "its text isn't there once"
            if planted(FAULTS[name], Path(folder)):
                told = failure(FAULTS[name].backend, Path(folder)) or "not found"
        missed |= "::" not in told
        print(f"{name} ({FAULTS[name].file}): {told}", flush=True)
    sys.exit(missed)


if __name__ == "__main__":
    main()
