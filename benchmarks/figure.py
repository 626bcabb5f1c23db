"""Time and memory against the batch: `docs/figures/speed.svg`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks import measure, peers
from benchmarks.report import Row, key_of

FIGURE = measure.ROOT / "docs" / "figures" / "speed.svg"
# Ours in one blue, solid where PyTorch; the others in greys and orange. Marker tells the form too.
STYLES = {
    "torch.eager": ("#d55e00", "o", "-"),
    "torch.compiled": ("#e69f00", "s", "-"),
    "torch.ntxent": ("#0072b2", "o", "-"),
    "torch.recomputed": ("#56b4e9", "s", "-"),
    "numpy.dense": ("#999999", "^", "--"),
    "numpy.tiled": ("#0072b2", "^", "--"),
    "jax.dense": ("#999999", "v", ":"),
    "jax.ntxent": ("#0072b2", "v", ":"),
    "tensorflow.simclr": ("#999999", "D", "-."),
    "tensorflow.ntxent": ("#0072b2", "D", "-."),
}
PANELS = (
    ("runtime_ms", "time, forward and backward (ms)"),
    ("peak_mib", "peak memory above the inputs (MiB)"),
)


def draw(rows: Sequence[Row], path: Path = FIGURE) -> None:
    """Two panels, both axes logarithmic: a straight line is a power of N."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "ntxent"  # the same rows give the same file
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    for axis, (quantity, label) in zip(axes, PANELS, strict=True):
        for key, (color, marker, style) in STYLES.items():
            points = sorted(
                (row.batch_images, getattr(row, quantity))
                for row in rows
                if key_of(row) == key and getattr(row, quantity)
            )
            if points:
                axis.plot(
                    *zip(*points, strict=True),
                    color=color,
                    marker=marker,
                    linestyle=style,
                    markersize=4,
                    label=peers.FORMS[key].label,
                )
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xlabel("images in the batch, N (two views of each)")
        axis.set_ylabel(label)
        axis.grid(color="#dddddd", linewidth=0.5)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close(figure)
