"""What the rows say: lines for the terminal, and tables in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from benchmarks import peers
from benchmarks.cases import Setting
from benchmarks.results import Row
from benchmarks.units import duration, size, times_as_much

# The least of the floor that a time can be. A step computes every tile once at least, and both
# products of the backward pass: with all tiles kept that is 0.7 to 0.75 of the floor, at the rates
# of these libraries; forward alone it is the floor. What is left is for noise.
LEAST = {"both": 2 / 3, "forward": 0.9}
HEADER = (
    f"{'N':>6}  {'form':<34} {'median':>8} {'p20':>8} {'p80':>8} {'cpu':>8} {'peak':>8} "
    f"{'/floor':>6} {'faster':>6} {'loss err':>8} {'grad err':>8}"
)


def line(row: Row, rows: Sequence[Row]) -> str:
    """A row for the terminal; `faster` says how much than the fastest peer of its case."""
    start = f"{row.batch_images:>6}  {label(row):<34} "
    if row.failed:
        return start + row.failed
    times = " ".join(
        f"{duration(value):>8}"
        for value in (row.runtime_ms, row.runtime_p20_ms, row.runtime_p80_ms, row.cpu_ms)
    )
    best = fastest_peer(row.setting, rows)
    ahead = over(best.runtime_ms if best else None, row.runtime_ms)
    return (
        f"{start}{times} {size(row.peak_mib):>8} "
        f"{times_as_much(over(row.runtime_ms, row.floor_ms)):>6} {times_as_much(ahead):>6} "
        f"{row.loss_error_ratio or 0:>8.0e} {row.gradient_error_ratio or 0:>8.0e}"
    )


def label(row: Row) -> str:
    """The form's name for reading."""
    return peers.FORMS[row.key].label


def of(rows: Iterable[Row], setting: Setting, key: str) -> Row | None:
    """The row of one form on one setting."""
    return next((row for row in rows if row.key == key and row.setting == setting), None)


def fastest_peer(setting: Setting, rows: Iterable[Row]) -> Row | None:
    """The fastest form that isn't ours, of those that were right on this setting."""
    found = [
        row
        for row in rows
        if row.setting == setting and row.runtime_ms and not peers.FORMS[row.key].ours
    ]
    return min(found, key=lambda row: row.runtime_ms or 0.0, default=None)


def over(a: float | None, b: float | None) -> float | None:
    """a / b, where both were measured."""
    return a / b if a and b else None


def impossible(rows: Iterable[Row]) -> list[str]:
    """A line for each row whose time, or whose floor, was measured wrongly."""
    found = []
    for row in rows:
        ratio, least = over(row.runtime_ms, row.floor_ms), LEAST[row.direction]
        if ratio is not None and ratio < least:
            found.append(
                f"{row.key}, {row.loss}, N = {row.batch_images}: {duration(row.runtime_ms)} is "
                f"{ratio:.2f} of the floor, {duration(row.floor_ms)}; below {least:.2f} one of "
                "them was measured wrongly. On an idle machine: python -m benchmarks "
                f"--only {row.library}"
            )
    return found


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]], text_columns: int = 1) -> str:
    """A table; columns of numbers stand to the right."""
    ruler = ["--"] * text_columns + ["--:"] * (len(head) - text_columns)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ruler, *lines])


def by_size(
    rows: Sequence[Row], base: Setting, keys: Sequence[str], cell: Callable[[Row], str]
) -> str:
    """A line for each form, a column for each batch."""
    sizes = sorted({row.batch_images for row in rows if alike(row, base) and row.key in keys})
    lines = []
    for key in keys:
        found = [of(rows, replace(base, images=images), key) for images in sizes]
        cells = [cell(row) if row else "" for row in found]
        if any(cells):
            lines.append([peers.FORMS[key].label, *(text or "–" for text in cells)])
    return markdown(["batch N", *map(str, sizes)], lines)


def alike(row: Row, base: Setting) -> bool:
    """Whether a row's setting is this one but for the batch."""
    return replace(row.setting, images=0) == replace(base, images=0)


def time_of(row: Row) -> str:
    """The time; why there is none."""
    if row.failed.startswith("wrong"):
        return "wrong"
    return duration(row.runtime_ms) if row.runtime_ms else ""


def peak_of(row: Row) -> str:
    """The peak, or how much memory was asked for."""
    if row.failed.startswith("needs"):
        return row.failed.split(",")[0].replace(" of memory", "")
    return size(row.peak_mib) if row.peak_mib else ""


def caption(rows: Sequence[Row]) -> str:
    """What the numbers are and where they are from."""
    commits = sorted({row.commit for row in rows})
    machines = sorted({f"{row.cpu_count} cores of {row.device}" for row in rows})
    pythons = sorted({row.python_version for row in rows})
    names = {(peers.FORMS[row.key].distribution, row.package_version) for row in rows}
    packages = sorted(f"{name} {version}" for name, version in names if version)
    dates = sorted({row.date_utc for row in rows})
    days = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    busiest = max((row.others_busy_ratio or 0 for row in rows), default=0)
    return (
        f"{' and '.join(machines)}, Python {', '.join(pythons)}; "
        f"{', '.join(packages)}; {days}, commit {', '.join(commits)}; other processes took at "
        f"most {busiest:.0%} of the cores."
    )
