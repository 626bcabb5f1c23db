"""Rows of results, and the CSV files that hold them."""

from __future__ import annotations

import csv
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure, peers
from benchmarks.cases import Setting

FOLDER = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Row:
    """One form on one setting; what wasn't measured is None. `ratio` is dimensionless."""

    library: str
    form: str
    loss: str
    batch_images: int
    row_columns: int
    dtype: str
    temperature_ratio: float
    direction: str  # "both" or "forward"
    threads_count: int
    runtime_ms: float | None  # the median of the turns
    runtime_p20_ms: float | None
    runtime_p80_ms: float | None
    cpu_ms: float | None  # of all threads
    steps_count: int
    peak_mib: float | None  # above the inputs
    floor_ms: float | None  # what the products and the exponentials take alone, in the same run
    loss_error_ratio: float | None
    gradient_error_ratio: float | None
    failed: str  # why there are no numbers
    others_busy_ratio: float | None  # share of the cores that others took meanwhile
    cpu_count: int
    device: str
    python_version: str
    library_version: str
    package_version: str  # of the peer, or of ntxent
    commit: str
    date_utc: str

    @property
    def key(self) -> str:
        """The form's key in peers.FORMS."""
        return f"{self.library}.{self.form}"

    @property
    def setting(self) -> Setting:
        """What the form ran on."""
        return Setting(
            self.library,
            self.loss,
            self.batch_images,
            self.row_columns,
            self.dtype,
            self.temperature_ratio,
            self.direction == "both",
            self.threads_count,
        )


def make_row(key: str, setting: Setting, answer: dict[str, Any], busy: float | None) -> Row:
    """A row from an answer of `measure`."""
    failed = answer.get("failed", "")
    times = [] if failed else answer.get("times_ms", [])
    p20, median, p80 = (float(np.percentile(times, q)) if times else None for q in (20, 50, 80))
    return Row(
        library=setting.library,
        form=key.split(".")[1],
        loss=setting.loss,
        batch_images=setting.images,
        row_columns=setting.columns,
        dtype=setting.dtype,
        temperature_ratio=setting.temperature,
        direction="both" if setting.backward else "forward",
        threads_count=setting.threads,
        runtime_ms=median,
        runtime_p20_ms=p20,
        runtime_p80_ms=p80,
        cpu_ms=None if failed else answer.get("cpu_ms"),
        steps_count=answer.get("steps", len(times)),
        peak_mib=None if failed else answer.get("peak_mib"),
        floor_ms=answer.get("floor_ms"),
        loss_error_ratio=answer.get("loss_error"),
        gradient_error_ratio=answer.get("gradient_error"),
        failed=failed,
        others_busy_ratio=busy,
        **environment(key),
    )


def environment(key: str) -> dict[str, Any]:
    """Where and with what; no names of machines or folders."""
    form = peers.FORMS[key]
    return {
        "cpu_count": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "device": processor(),
        "python_version": platform.python_version(),
        "library_version": version_of(form.library),
        "package_version": version_of(form.distribution),
        "commit": commit(),
        "date_utc": datetime.now(UTC).date().isoformat(),
    }


def version_of(package: str) -> str:
    """The version, empty if it isn't installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def processor() -> str:
    """The name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@cache  # of the start of the run: what is edited meanwhile was not measured
def commit() -> str:
    """The commit, with a + if the code that was measured differs from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(measure.ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "src", ":(glob)benchmarks/**/*.py")
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


def write(path: Path, rows: Sequence[Any]) -> None:
    """One line a row, numbers at four digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        names = [field.name for field in fields(rows[0])]
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            values = asdict(row).items()
            writer.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in values})


def read(path: Path, kind: type[Any] = Row) -> list[Any]:
    """The rows again."""
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    return [
        kind(**{f.name: parsed(f.type, cells[f.name]) for f in fields(kind)}) for cells in lines
    ]


def parsed(kind: Any, text: str) -> Any:
    """A cell as its field's type says."""
    if kind == "str":
        return text
    if kind == "int":
        return int(text)
    return float(text) if text else None


def merged(old: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """The new rows in the place of older ones of the same form and setting."""
    found = {(row.key, row.setting): row for row in [*old, *new]}
    return list(found.values())
