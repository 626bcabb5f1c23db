"""What a GPU measured: rows, and their tables in docs/performance.md."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter

import torch

from benchmarks import marks, report, results
from benchmarks.gpu_forms import DISTRIBUTIONS, LABELS, OURS, TEMPERATURE
from benchmarks.units import duration, size

PATH = results.FOLDER / "gpu.csv"
PAGE = "docs/performance.md"
FAR = 50  # times the floor: nothing but calls
NAMES = {"nt_xent": "NT-Xent", "info_nce": "InfoNCE, symmetric"}


@dataclass(frozen=True)
class Row:
    """One form on one problem, forward and backward; what wasn't measured is None."""

    loss: str
    form: str
    product: str
    batch_images: int
    row_columns: int
    temperature_ratio: float
    runtime_ms: float | None  # the median of the turns
    runtime_min_ms: float | None
    runtime_max_ms: float | None
    steps_count: int
    peak_mib: float | None  # above the inputs
    floor_ms: float  # what the products or the exponentials take alone
    loss_error_ratio: float | None  # at N = 512
    gradient_error_ratio: float | None
    failed: str
    device: str
    library_version: str
    triton_version: str
    package_version: str
    commit: str
    date_utc: str


def make_row(
    problem: tuple[str, str, str, int, int],
    found: tuple[list[float], int] | None,
    floor: float,
    off: tuple[float | None, float | None],
    failed: str,
    commit: str | None,
) -> Row:
    """A row of times in seconds and a peak in bytes; of None where it failed."""
    times = [1e3 * second for second in found[0]] if found else []
    loss, form, product, images, columns = problem
    return Row(
        loss=loss,
        form=form,
        product=product,
        batch_images=images,
        row_columns=columns,
        temperature_ratio=TEMPERATURE,
        runtime_ms=statistics.median(times) if times else None,
        runtime_min_ms=min(times, default=None),
        runtime_max_ms=max(times, default=None),
        steps_count=len(times),
        peak_mib=found[1] / 2**20 if found else None,
        floor_ms=1e3 * floor,
        loss_error_ratio=off[0],
        gradient_error_ratio=off[1],
        failed=failed,
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        library_version=str(torch.__version__),
        triton_version=results.version_of("triton"),
        package_version=results.version_of(DISTRIBUTIONS.get(form, "torch")),
        commit=commit or results.commit(),
        date_utc=datetime.now(UTC).date().isoformat(),
    )


def merged(old: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """The new rows in the place of older ones of the same form and problem."""
    key = attrgetter("loss", "form", "product", "batch_images", "row_columns")
    return list({key(row): row for row in [*old, *new]}.values())


def line(row: Row) -> str:
    """For the terminal."""
    start = f"{row.loss} {row.product} d={row.row_columns} N={row.batch_images} {row.form}: "
    if row.failed:
        return start + row.failed
    return (
        f"{start}{duration(row.runtime_ms)}, {size(row.peak_mib)}, floor {duration(row.floor_ms)}, "
        f"errors {row.loss_error_ratio or 0:.0e} {row.gradient_error_ratio or 0:.0e}"
    )


def tables(rows: Sequence[Row]) -> str:
    """One for each loss and length of rows: precisions and batches down, forms across."""
    found = []
    for loss, dim in dict.fromkeys((row.loss, row.row_columns) for row in rows):
        chosen = [row for row in rows if (row.loss, row.row_columns) == (loss, dim)]
        keys = [key for key in LABELS if any(row.form == key for row in chosen)]
        keys = [key for key in keys if key not in OURS]
        lines = []
        for how, images in dict.fromkeys((row.product, row.batch_images) for row in chosen):
            here = {r.form: r for r in chosen if (r.product, r.batch_images) == (how, images)}
            others = [cell(here.get(key)) for key in keys]
            lines.append([how, str(images), *others, own_cell(here), *gain(here)])
        title = f"{NAMES[loss]}, d = {dim}"
        head = [title, "N", *(LABELS[key] for key in keys), "ntxent", "faster", "/ floor"]
        found.append(report.markdown(head, lines))
    return "\n\n".join(found)


def cell(row: Row | None) -> str:
    """Time and memory."""
    if row is None:
        return "–"
    return row.failed or f"{duration(row.runtime_ms)}, {size(row.peak_mib)}"


def own_cell(here: dict[str, Row]) -> str:
    """Ours; with IEEE products, marked, where nothing else was timed."""
    if "ntxent" not in here and "ntxent_ieee" in here:
        return cell(here["ntxent_ieee"]) + " †"
    return cell(here.get("ntxent"))


def gain(here: dict[str, Row]) -> tuple[str, str]:
    """Against the fastest other form; over the floor, where that is more than a start."""
    ours = here.get("ntxent")
    if ours is None or not ours.runtime_ms:
        return "–", "–"
    others = [row.runtime_ms for key, row in here.items() if key not in OURS and row.runtime_ms]
    ahead = f"{min(others) / ours.runtime_ms:.2f} ×" if others else "–"
    over = ours.runtime_ms / ours.floor_ms
    return ahead, f"{over:.1f}" if over < FAR else "–"


def accuracy(rows: Sequence[Row]) -> str:
    """Errors at N = 512 by form and precision, of the first length of rows."""
    lines = []
    for loss, how in dict.fromkeys((row.loss, row.product) for row in rows):
        chosen = {r.form: r for r in reversed(rows) if (r.loss, r.product) == (loss, how)}
        for key in (key for key in LABELS if key in chosen and key != "compiled"):
            off = chosen[key].loss_error_ratio, chosen[key].gradient_error_ratio
            told = ("–" if error is None else f"{error:.0e}" for error in off)
            lines.append([NAMES[loss], how, LABELS[key], *told])
    return report.markdown(["", "product", "form", "loss", "gradient"], lines, text_columns=3)


def caption(rows: Sequence[Row]) -> str:
    """Where the numbers are from."""
    first = rows[0]
    packages = sorted(
        {
            f"{DISTRIBUTIONS[row.form]} {row.package_version}"
            for row in rows
            if row.form in DISTRIBUTIONS and row.package_version
        }
    )
    commits, dates = (sorted({getattr(r, x) for r in rows}) for x in ("commit", "date_utc"))
    return (
        f"{first.device}, torch {first.library_version}, triton {first.triton_version}; "
        f"{', '.join(packages)}; †: IEEE products; τ = {first.temperature_ratio:g}; "
        f"{', '.join(dates)}, commit {', '.join(commits)}."
    )


def part() -> str:
    """The page's part, as the stored rows say."""
    rows = results.read(PATH, Row)
    text = f"{tables(rows)}\n\n{caption(rows)}\n\nErrors at N = 512, against float64:\n\n"
    return text + accuracy(rows)


def write_page() -> None:
    """Into docs/performance.md."""
    marks.write(PAGE, gpu=part())
