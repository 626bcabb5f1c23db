"""Time and memory against the batch, both axes logarithmic: `docs/figures/speed-*.svg`."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import measure, peers, report
from benchmarks.cases import Setting
from benchmarks.results import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = measure.ROOT / "docs" / "figures"
# Ours in blues; the others in oranges and greys. The marker tells the form too.
STYLES = {
    "eager": ("#d55e00", "o"),
    "eager_compiled": ("#e69f00", "s"),
    "mask": ("#8c8c8c", "v"),
    "row_maximum": ("#a67c52", "^"),
    "lightly": ("#cc79a7", "D"),
    "pml": ("#777777", "X"),
    "ntxent": ("#2b8cdb", "o"),
    "recomputed": ("#7cc4f5", "s"),
    "jitted": ("#d55e00", "s"),
    "optax": ("#8c8c8c", "X"),
    "simclr": ("#d55e00", "o"),
    "simclr_xla": ("#e69f00", "s"),
    "ntxent_xla": ("#7cc4f5", "s"),
    "ntxent_compiled": ("#1f5fa8", "^"),
    "row_maximum_compiled": ("#c9a27a", "v"),
    "mask_compiled": ("#b5b5b5", "<"),
    "lightly_compiled": ("#e0a9c6", ">"),
    "matrix": ("#d55e00", "o"),
    "dense": ("#5aa9a9", "D"),
}
PANELS = (("runtime_ms", "forward and backward, ms"), ("peak_mib", "peak memory, MiB"))
INK = "#808080"  # reads on white and on black
ALL = ("torch", "jax", "tensorflow", "numpy")


def draw(rows: Sequence[Row], folder: Path = FOLDER) -> list[Path]:
    """A figure for each framework: SVG for the pages, PNG for README's first."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "ntxent"  # the same rows give the same file
    made = []
    for library in ALL:
        figure = drawn(rows, library)
        if figure is None:
            continue
        for kind in ("svg", "png") if library == "torch" else ("svg",):
            path = folder / f"speed-{library}.{kind}"
            unsaid = ("Date", "Creator") if kind == "svg" else ("Software",)
            metadata = dict.fromkeys(unsaid) | {"Description": digest(rows, library)}
            figure.savefig(path, metadata=metadata, transparent=True, dpi=150)
            made.append(path)
    return made


def digest(rows: Sequence[Row], library: str) -> str:
    """Of what a figure shows; it is in the file, so that a test can tell a stale one."""
    base = Setting(library, "nt_xent", 0)
    shown = sorted(
        (row.key, row.batch_images, f"{row.runtime_ms:.4g}", f"{row.peak_mib or 0:.4g}")
        for row in rows
        if report.alike(row, base) and row.runtime_ms
    )
    return f"results {sha256(repr(shown).encode()).hexdigest()[:16]}"


def drawn(rows: Sequence[Row], library: str) -> Figure | None:
    """Two panels, a line for each form; a straight line is a power of N."""
    import matplotlib.pyplot as plt

    base = Setting(library, "nt_xent", 0)
    own = [row for row in rows if report.alike(row, base) and row.runtime_ms]
    if not own:
        return None
    plt.rcParams |= dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    )
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
    for axis, (quantity, title) in zip(axes, PANELS, strict=True):
        for form, (color, marker) in STYLES.items():
            key = f"{library}.{form}"
            points = [
                (row.batch_images, getattr(row, quantity))
                for row in own
                if row.key == key and getattr(row, quantity)
            ]
            if points:
                x, y = zip(*sorted(points), strict=True)
                width = 2.2 if peers.FORMS[key].ours else 1.2
                name = peers.FORMS[key].label
                axis.plot(x, y, color=color, marker=marker, ms=4, lw=width, label=name)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_xlabel("images in the batch, N")
        axis.grid(color=INK, alpha=0.25, linewidth=0.5)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize="small"
    )
    return figure
