"""How time and memory grow with the batch: exponents fitted to the large sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks import peers, report
from benchmarks.cases import Setting
from benchmarks.results import Row

SMALLEST = 1024  # below, calls and caches count for more than the pairs do


@dataclass(frozen=True)
class Growth:
    """Of one form: exponents of N, None where fewer than two sizes were measured."""

    key: str
    time: float | None
    memory: float | None
    sizes: tuple[int, ...]


def exponents(rows: Sequence[Row], base: Setting) -> list[Growth]:
    """Of each form that ran at two sizes or more."""
    found = []
    for key in dict.fromkeys(row.key for row in rows if report.alike(row, base)):
        own = [row for row in rows if row.key == key and report.alike(row, base)]
        own = [row for row in own if row.batch_images >= SMALLEST and row.runtime_ms]
        sizes = tuple(row.batch_images for row in own)
        if len(sizes) > 1:
            found.append(
                Growth(key, slope(own, "runtime_ms"), slope(own, "peak_mib"), sizes),
            )
    return found


def slope(rows: Sequence[Row], quantity: str) -> float | None:
    """The straight line through the logarithms."""
    points = [(row.batch_images, getattr(row, quantity)) for row in rows if getattr(row, quantity)]
    if len(points) < 2:
        return None
    x, y = np.log(np.array(points, float).T)
    return float(np.polyfit(x, y, 1)[0])


def table(rows: Sequence[Row]) -> str:
    """All libraries' NT-Xent in Markdown."""
    lines = []
    for library in ("torch", "numpy", "jax", "tensorflow"):
        for growth in exponents(rows, Setting(library, "nt_xent", 0)):
            cells = ["–" if x is None else f"{x:.2f}" for x in (growth.time, growth.memory)]
            span = f"{min(growth.sizes)} to {max(growth.sizes)}"
            lines.append([peers.FORMS[growth.key].label, span, *cells])
    return report.markdown(["form", "N", "time", "memory"], lines, text_columns=2)
