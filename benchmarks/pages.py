"""README's table and those of docs/performance.md, from results and never by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from benchmarks import claims, growth, marks, peers, report
from benchmarks.cases import Setting
from benchmarks.results import Row
from benchmarks.units import duration, size

TORCH = Setting("torch", "nt_xent", 0)
README_SIZES = (64, 256, 1024, 4096, 16384, 65536)
README_FORMS = ("eager", "eager_compiled", "lightly", "pml", "ntxent")
FRAMEWORKS = (
    ("PyTorch", "torch", "ntxent"),
    ("JAX, jit", "jax", "ntxent"),
    ("TensorFlow, XLA", "tensorflow", "ntxent_xla"),
    ("NumPy", "numpy", "ntxent"),
)


def pages(rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    """The text of each part of each page."""
    return {
        "README.md": {"benchmark": readme(rows)},
        "docs/performance.md": {
            "times": "\n\n".join(
                report.by_size(rows, Setting(library, "nt_xent", 0), keys(library), report.time_of)
                for library in ("torch", "jax", "tensorflow", "numpy")
            ),
            "peaks": "\n\n".join(
                report.by_size(rows, Setting(library, "nt_xent", 0), keys(library), report.peak_of)
                for library in ("torch", "jax", "tensorflow", "numpy")
            ),
            "accuracy": accuracy(rows),
            "floors": floors(rows),
            "losses": losses(rows),
            "varied": varied(rows),
            "growth": growth.table(rows),
            "claims": claims.table(rows),
            "caption": report.caption(rows),
        },
    }


def keys(library: str) -> tuple[str, ...]:
    """A library's forms of NT-Xent."""
    return peers.of(library, "nt_xent")


def readme(rows: Sequence[Row]) -> str:
    """PyTorch by size; every framework at one size; and where the numbers are from."""
    forms = [f"torch.{form}" for form in README_FORMS]
    head = ["batch N", *(peers.FORMS[key].label for key in forms), "against the fastest peer"]
    lines = []
    for images in README_SIZES:
        setting = replace(TORCH, images=images)
        found = [report.of(rows, setting, key) for key in forms]
        best, ours = report.fastest_peer(setting, rows), found[-1]
        ahead = report.over(best.runtime_ms if best else None, ours.runtime_ms if ours else None)
        lines.append([str(images), *map(both, found), f"{ahead:.2f} ×" if ahead else "–"])
    by_batch = report.markdown(head, lines, text_columns=0)
    return f"{by_batch}\n\n{frameworks(rows)}\n\n{report.caption(rows)}"


def frameworks(rows: Sequence[Row]) -> str:
    """Each framework's fastest peer at N = 4096, and ours."""
    lines = []
    for label, library, form in FRAMEWORKS:
        setting = Setting(library, "nt_xent", 4096)
        best = report.fastest_peer(setting, rows)
        ours = report.of(rows, setting, f"{library}.{form}")
        if best is None or ours is None:
            continue
        ahead = report.over(best.runtime_ms, ours.runtime_ms)
        lines.append([label, report.label(best), both(best), both(ours), f"{ahead:.2f} ×"])
    head = ["N = 4096", "fastest peer", "its step", "ntxent", "faster"]
    return report.markdown(head, lines, text_columns=2)


def both(row: Row | None) -> str:
    """Time and memory; a dash where the form can't run."""
    if row is None or not row.runtime_ms:
        return "–"
    return duration(row.runtime_ms) + (f", {size(row.peak_mib)}" if row.peak_mib else "")


def accuracy(rows: Sequence[Row]) -> str:
    """Errors of every form that ran at N = 4096, or else 1024, or else 256."""
    lines = []
    for key, form in peers.FORMS.items():
        for images in (4096, 1024, 256):
            setting = Setting(form.library, form.loss, images)
            row = report.of(rows, setting, key)
            if row and row.loss_error_ratio is not None:
                found = row.loss_error_ratio, row.gradient_error_ratio or 0.0
                lines.append([form.label, str(images), *(f"{error:.0e}" for error in found)])
                break
    return report.markdown(["form", "N", "loss", "gradient"], lines)


def floors(rows: Sequence[Row]) -> str:
    """Our times over the floor, from where the pairs count."""
    ours = [key for key, form in peers.FORMS.items() if form.ours and form.loss == "nt_xent"]
    sizes = (1024, 2048, 4096, 8192, 16384, 65536)
    lines = []
    for key in ours:
        settings = [Setting(key.split(".")[0], "nt_xent", images) for images in sizes]
        found = [report.of(rows, setting, key) for setting in settings]
        ratios = [report.over(row.runtime_ms, row.floor_ms) if row else None for row in found]
        if any(ratios):
            cells = [f"{ratio:.2f}" if ratio else "–" for ratio in ratios]
            lines.append([peers.FORMS[key].label, *cells])
    return report.markdown(["time / floor, N", *map(str, sizes)], lines)


def losses(rows: Sequence[Row]) -> str:
    """The other losses of the family, by size."""
    return "\n\n".join(
        report.by_size(rows, Setting("torch", loss, 0), peers.of("torch", loss), both)
        for loss in ("sup_con", "clip", "info_nce")
    )


def varied(rows: Sequence[Row]) -> str:
    """Settings that differ from the first in one thing, and that one."""
    base = [replace(TORCH, images=images) for images in (256, 1024)]
    settings = dict.fromkeys(row.setting for row in rows if row.library == "torch")
    others = [s for s in settings if s.loss == "nt_xent" and differs(s)]
    lines = []
    for setting in sorted([*base, *others], key=lambda s: (s.images, differs(s))):
        found = [report.of(rows, setting, f"torch.{form}") for form in ("eager", "eager_compiled")]
        ours = report.of(rows, setting, "torch.ntxent")
        best = report.fastest_peer(setting, [row for row in found if row])
        ahead = report.over(best.runtime_ms if best else None, ours.runtime_ms if ours else None)
        cells = [report.time_of(row) if row else "–" for row in (*found, ours)]
        said = differs(setting) or "as above"
        lines.append([str(setting.images), said, *cells, f"{ahead:.2f} ×" if ahead else "–"])
    head = ["N", "changed", "cross-entropy", "compiled", "ntxent", "faster"]
    return report.markdown(head, lines, text_columns=2)


def differs(setting: Setting) -> str:
    """In what a setting isn't the usual one, in words."""
    usual = TORCH
    words = {
        f"d = {setting.columns}": setting.columns != usual.columns,
        setting.dtype: setting.dtype != usual.dtype,
        f"τ = {setting.temperature:g}": setting.temperature != usual.temperature,
        "one thread": setting.threads != usual.threads,
        "forward only": not setting.backward,
    }
    return ", ".join(word for word, changed in words.items() if changed)


def written(rows: Sequence[Row]) -> dict[str, tuple[str, str]]:
    """Each page as it is, and as it should be."""
    return {name: marks.filled(name, **parts) for name, parts in pages(rows).items()}
