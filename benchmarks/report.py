"""Rows of results: to the terminal, to a CSV file, and from there into README's table."""

from __future__ import annotations

import csv
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import cases, measure, peers
from benchmarks.units import duration, size, times_as_much

RESULTS = Path(__file__).resolve().parent / "results"
README = measure.ROOT / "README.md"
START, END = "<!-- benchmark:start -->", "<!-- benchmark:end -->"
README_IMAGES = (64, 256, 1024, 4096, 8192, 16384, 65536)


@dataclass(frozen=True)
class Row:
    """One form on one batch; what wasn't measured is None. `ratio` is dimensionless."""

    library: str
    form: str
    batch_images: int
    row_columns: int
    dtype: str
    temperature_ratio: float
    runtime_ms: float | None  # the median
    runtime_p20_ms: float | None
    runtime_p80_ms: float | None
    repeats_count: int
    peak_mib: float | None  # above the inputs
    loss_error_ratio: float | None
    gradient_error_ratio: float | None
    runtime_ratio: float | None  # the baseline's over this one's: above 1 is faster
    peak_ratio: float | None  # likewise: above 1 is smaller
    failed: str
    others_busy_ratio: float | None  # share of the cores that others took meanwhile
    threads_count: int
    cpu_count: int
    device: str
    python_version: str
    library_version: str
    ntxent_version: str
    commit: str
    date_utc: str


def make_row(key: str, images: int, answer: dict[str, Any], busy: float | None) -> Row:
    """A row from the answer of `measure`, without ratios yet."""
    library, form = key.split(".")
    times = [] if "failed" in answer else answer.get("times_ms", [])
    p20, median, p80 = percentiles(times)
    return Row(
        library=library,
        form=form,
        batch_images=images,
        row_columns=cases.COLUMNS,
        dtype=cases.DTYPE,
        temperature_ratio=cases.TEMPERATURE,
        runtime_ms=median,
        runtime_p20_ms=p20,
        runtime_p80_ms=p80,
        repeats_count=len(times),
        peak_mib=None if "failed" in answer else answer.get("peak_mib"),
        loss_error_ratio=answer.get("loss_error"),
        gradient_error_ratio=answer.get("gradient_error"),
        runtime_ratio=None,
        peak_ratio=None,
        failed=answer.get("failed", ""),
        others_busy_ratio=busy,
        **environment(library),
    )


def percentiles(times: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """The 20th, the median and the 80th."""
    if not times:
        return None, None, None
    if len(times) == 1:
        return times[0], times[0], times[0]
    fifths = statistics.quantiles(times, n=5, method="inclusive")
    return fifths[0], statistics.median(times), fifths[3]


def environment(library: str) -> dict[str, Any]:
    """Where and with what; no names of machines or folders."""
    return {
        "threads_count": cases.THREADS,
        "cpu_count": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "device": processor(),
        "python_version": platform.python_version(),
        "library_version": version(library),
        "ntxent_version": version("ntxent"),
        "commit": commit(),
        "date_utc": datetime.now(UTC).date().isoformat(),
    }


def processor() -> str:
    """The name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str:
    """The commit, with a + if the code that was measured differs from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(measure.ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "src", ":(glob)benchmarks/*.py")
        return git("rev-parse", "--short", "HEAD") + "+" * bool(changed)
    except (OSError, subprocess.CalledProcessError):
        return ""  # an unpacked archive


class Clock:
    """What others take of the cores from here on: all that is used, less what our children use."""

    def __init__(self) -> None:
        self.start = self.ticks()

    @staticmethod
    def ticks() -> tuple[float, float]:
        """Ticks of all cores so far; those of them that were idle or our own."""
        stat = Path("/proc/stat")
        if not stat.exists():
            return 0.0, 0.0
        counts = [int(word) for word in stat.read_text().splitlines()[0].split()[1:9]]
        own = sum(os.times()[:4]) * os.sysconf("SC_CLK_TCK")
        return sum(counts), counts[3] + counts[4] + own  # idle, and waiting for a disk

    def others(self) -> float | None:
        """The share of others since the start; None where the system doesn't say."""
        passed, quiet = (now - then for now, then in zip(self.ticks(), self.start, strict=True))
        return max(0.0, 1 - quiet / passed) if passed else None


def with_ratios(rows: Iterable[Row]) -> list[Row]:
    """The rows of one case, each compared with the baseline of its library and loss."""
    rows = list(rows)
    found = {key_of(row): row for row in rows}

    def base(row: Row) -> Row | None:
        form = peers.FORMS[key_of(row)]
        return found.get(peers.BASELINES[form.library, form.loss])

    return [
        replace(
            row,
            runtime_ratio=over(getattr(base(row), "runtime_ms", None), row.runtime_ms),
            peak_ratio=over(getattr(base(row), "peak_mib", None), row.peak_mib),
        )
        for row in rows
    ]


def over(a: float | None, b: float | None) -> float | None:
    """a / b, where both were measured."""
    return a / b if a and b else None


def key_of(row: Row) -> str:
    """The row's key in peers.FORMS."""
    return f"{row.library}.{row.form}"


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """One line a row, numbers at four digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            values = asdict(row).items()
            writer.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in values})


def read_csv(path: Path) -> list[Row]:
    """The rows again."""
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    return [Row(**{f.name: parsed(f.type, cells[f.name]) for f in fields(Row)}) for cells in lines]


def parsed(kind: Any, text: str) -> Any:
    """A cell as its field's type says."""
    if kind == "str":
        return text
    if kind == "int":
        return int(text)
    return float(text) if text else None


HEADER = (
    f"{'N':>6}  {'form':<31} {'median':>9} {'p20':>9} {'p80':>9} {'repeats':>7} {'peak':>9} "
    f"{'faster':>7} {'smaller':>7} {'loss err':>8} {'grad err':>8}"
)


def line(row: Row) -> str:
    """A row for the terminal."""
    start = f"{row.batch_images:>6}  {peers.FORMS[key_of(row)].label:<31} "
    if row.failed:
        return start + row.failed
    times = " ".join(
        f"{duration(value):>9}"
        for value in (row.runtime_ms, row.runtime_p20_ms, row.runtime_p80_ms)
    )
    return (
        f"{start}{times} {row.repeats_count:>7} {size(row.peak_mib):>9} "
        f"{times_as_much(row.runtime_ratio):>7} {times_as_much(row.peak_ratio):>7} "
        f"{row.loss_error_ratio or 0:>8.0e} {row.gradient_error_ratio or 0:>8.0e}"
    )


def table(rows: Sequence[Row]) -> str:
    """README's tables in Markdown."""
    tables = [
        table_of(rows, libraries, ("nt_xent",))
        for libraries in (("torch", "numpy"), ("jax",), ("tensorflow",))
    ]
    tables.append(table_of(rows, ("torch",), ("sup_con", "info_nce")))
    return "\n\n".join([*filter(None, tables), caption(rows)])


def table_of(rows: Sequence[Row], libraries: Sequence[str], losses: Sequence[str]) -> str:
    """A column for each form of some libraries and losses, a line for each batch."""
    present = {key_of(row) for row in rows if row.library in libraries}
    chosen = [key for key, form in peers.FORMS.items() if key in present and form.loss in losses]
    if not chosen:
        return ""
    cells = {(key_of(row), row.batch_images): row for row in rows if not row.failed}
    lines = [
        "| batch N | " + " | ".join(peers.FORMS[key].label for key in chosen) + " |",
        "|--:" * (1 + len(chosen)) + "|",
    ]
    for images in README_IMAGES:
        found = [cells.get((key, images)) for key in chosen]
        if any(found):
            lines.append(f"| {images} | " + " | ".join(cell(row) for row in found) + " |")
    return "\n".join(lines)


def cell(row: Row | None) -> str:
    """Time and memory; a dash where the form doesn't fit into memory."""
    if row is None:
        return "–"
    return duration(row.runtime_ms) + (f", {size(row.peak_mib)}" if row.peak_mib else "")


def caption(rows: Sequence[Row]) -> str:
    """What the numbers are and where they are from."""
    first = rows[0]
    versions = sorted({f"{row.library} {row.library_version}" for row in rows})
    commits = sorted({row.commit for row in rows})
    return (
        f"Forward and backward, d={first.row_columns}, {first.dtype}, temperature "
        f"{first.temperature_ratio:g}, {first.threads_count} threads of {first.device}; median "
        f"time, peak memory above the inputs. {', '.join(versions)}; {first.date_utc}, the "
        f"cases of `python -m benchmarks --claims`, at {', '.join(commits)}."
    )


def readme_with(text: str, found: str) -> str:
    """README's text with what stands between the markers replaced."""
    if found.count(START) != 1 or found.count(END) != 1:
        msg = f"README.md must have the lines {START} and {END}, once each: add them."
        raise SystemExit(msg)
    before, rest = found.split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n{text}\n{END}{after}"
