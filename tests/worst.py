"""The worst errors of the hostile grid, as shares of the bounds: the measured side of the promise.

python tests/worst.py [--write]          run the accuracy tests of every installed backend
python tests/worst.py --read LOG         take what test sessions have printed already

`--write` puts the table into docs/numerics.md.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

from _benchmarks import marks
from ntxent import available_backends

TESTS = Path(__file__).parent
LINE = re.compile(r"hostile grid, (\w+), (\w+): (\d+) cases, worst error ([\d.]+) of")
QUANTITIES = ("loss", "row", "gradient", "temperature")


def printed(backend: str) -> str:
    """What the accuracy tests of a backend print at their end."""
    command = [sys.executable, "-m", "pytest", "-q", "--backend", backend, "test_accuracy.py"]
    run = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(run.stdout + run.stderr)
    return run.stdout


def table(text: str) -> str:
    """A line for each backend: cases, and the worst share of each bound."""
    found = {(m[2], m[1]): (m[3], m[4]) for m in LINE.finditer(text)}
    lines = ["| backend | cases | " + " | ".join(QUANTITIES) + " |", "|---|--:|--:|--:|--:|--:|"]
    for backend in dict.fromkeys(backend for backend, _ in found):
        cells = [found[backend, quantity] for quantity in QUANTITIES]
        shares = " | ".join(share for _, share in cells)
        lines.append(f"| {backend} | {cells[0][0]} | {shares} |")
    return "\n".join(lines)


def main() -> int:
    """Print the table, and write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--read", type=Path, help="output of test sessions, to take instead")
    parser.add_argument("--write", action="store_true", help="put the table into docs/numerics.md")
    options = parser.parse_args()
    text = options.read.read_text() if options.read else "".join(map(printed, available_backends()))
    print(made := table(text))
    if options.write:
        marks.write("docs/numerics.md", worst=made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
