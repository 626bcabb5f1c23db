"""Numbers for reading."""

from __future__ import annotations


def duration(ms: float | None) -> str:
    """Three digits and a unit that suits."""
    if ms is None:
        return "–"
    value, unit = (1000 * ms, "µs") if ms < 1 else (ms, "ms") if ms < 1000 else (ms / 1000, "s")
    return f"{value:#.3g}".rstrip(".") + f" {unit}"


def size(mib: float | None) -> str:
    """MiB, or GiB if there are many."""
    if mib is None:
        return "–"
    return f"{mib:.0f} MiB" if mib < 1000 else f"{mib / 1024:.1f} GiB"


def times_as_much(ratio: float | None) -> str:
    """A ratio for reading."""
    return "–" if ratio is None else f"{ratio:.{1 if ratio < 100 else 0}f}×"
