"""Which tile, and how much to keep: time and peak of every choice, backend by backend.

python -m benchmarks.tune [--backend jax] [--write]

The choices take turns in one run as forms do; `--write` puts the table into docs/performance.md.
The constants that ship stand in `src/ntxent/<backend>/_pairs/tiled.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import product

from benchmarks import marks, measure, peers, report
from benchmarks.cases import Case, Setting
from benchmarks.units import duration, size

MIB = 2**20
SIZES = (512, 1024, 4096, 16384)
# The form, and the values of each constant; with the first tile every budget, and so on.
CHOICES: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "torch": (
        "ntxent",
        {"TILE": (256, 512, 1024), "KEEP_BYTES": (0, 48 * MIB, 128 * MIB, 256 * MIB)},
    ),
    "jax": (
        "ntxent",
        {"TILE": (512, 1024, 2048), "KEEP_BYTES": (0, 48 * MIB, 128 * MIB, 256 * MIB)},
    ),
    "tensorflow": (
        "ntxent_xla",
        {
            "TILE": (256, 512, 1024),
            "ALONE": (1024, 2048, 4096),
            "KEEP_BYTES": (0, 48 * MIB, 128 * MIB, 256 * MIB),
        },
    ),
    "numpy": ("ntxent", {"TILE": (256, 512, 1024)}),
}
PAGE = "docs/performance.md"


def main() -> int:
    """Measure and print; write if asked."""
    parser = argparse.ArgumentParser("python -m benchmarks.tune", description=__doc__)
    parser.add_argument("--backend", choices=CHOICES, action="append")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    options = parser.parse_args()
    if options.write and options.sizes != SIZES:
        parser.error("--write puts tables of all sizes side by side: leave --sizes out")
    tables = {library: table(library, options.sizes) for library in options.backend or CHOICES}
    print("\n\n".join(tables.values()))
    if options.write:
        before = dict(zip(CHOICES, marks.read(PAGE, "tune").split("\n\n"), strict=True))
        marks.write(PAGE, tune="\n\n".join((before | tables).values()))
    return 0


def table(library: str, sizes: Sequence[int]) -> str:
    """A line for each choice, a column for each batch; the one that ships is bold."""
    form, _ = CHOICES[library]
    keys = {
        f"{library}.{form}@" + ",".join(f"{name}={value}" for name, value in choice.items()): (
            ", ".join(words(*item) for item in choice.items()),
            shipped,
        )
        for choice, shipped in choices(library)
    }
    peers.FORMS.update({key: peers.form(key) for key in keys})
    columns = [column(Setting(library, "nt_xent", images), [*keys]) for images in sizes]
    lines = [
        [f"**{name}**" if shipped else name, *(cells[key] for cells in columns)]
        for key, (name, shipped) in keys.items()
    ]
    head = [peers.FORMS[f"{library}.{form}"].label, *(f"N = {images}" for images in sizes)]
    return report.markdown(head, lines)


def choices(library: str) -> list[tuple[dict[str, int], bool]]:
    """Those that differ from what ships in one constant at most, and whether they are it."""
    _, given = CHOICES[library]
    tiled = import_module(f"ntxent.{library}._pairs.tiled")
    shipped = {name: getattr(tiled, name) for name in given}
    values = [sorted({*tried, shipped[name]}) for name, tried in given.items()]
    found = [dict(zip(given, choice, strict=True)) for choice in product(*values)]
    differing = [sum(choice[name] != shipped[name] for name in given) for choice in found]
    return [(c, not count) for c, count in zip(found, differing, strict=True) if count <= 1]


def column(setting: Setting, keys: Sequence[str]) -> dict[str, str]:
    """Time and peak of each choice on one batch."""
    case = Case(setting, tuple(keys), budget_s=10, memory=setting.images >= 1024)
    cells = {}
    for key, answer in measure.measured(case).items():
        times = sorted(answer.get("times_ms", []))
        found = [duration(times[len(times) // 2])] if times else [answer["failed"]]
        if answer.get("peak_mib"):
            found.append(size(answer["peak_mib"]))
        cells[key] = ", ".join(found)
    return cells


def words(name: str, value: int) -> str:
    """A constant for reading."""
    text = {"TILE": "tile {}", "ALONE": "one to {} rows", "KEEP_BYTES": "keep {} MiB"}[name]
    return text.format(value // MIB if name == "KEEP_BYTES" else value)


if __name__ == "__main__":
    sys.exit(main())
