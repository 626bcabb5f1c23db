"""Draw the figures of docs/from-formula-to-fast-code.md and of docs/architecture.md.

python docs/draw.py           all of them
python docs/draw.py rooms     one, by its name

Three are written as they are, in a few rectangles and lines; the errors are measured and plotted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from drawing import BLUE, DARK, FAINT, GREEN, INK, ORANGE, arrow, line, rectangle, svg, text
from steps import steps

FIGURES = Path(__file__).with_name("figures")

# Of the tiles: their side, how many along the square, its corner, and the one that is looked at.
SIZE, COUNT = 56, 6
TILES_LEFT, TILES_TOP = 70, 40
ROW, COLUMN = 1, 4

# Of the rooms: the height of a box, and from one layer to the next.
BOX, LAYER = 54, 84

# Of the errors: temperatures at the axis, and the form of each line.
TICKS = (1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
STYLES = {
    "logsumexp − positive (step 3)": {"color": ORANGE, "marker": "o", "linestyle": "-"},
    "softplus (step 4)": {"color": BLUE, "marker": "s", "linestyle": "-"},
    "softplus (ntxent.numpy)": {"color": GREEN, "marker": "^", "linestyle": "--"},
}


def similarities() -> str:
    """The matrix of the running example, each entry as what it is."""
    page = steps()
    names, similar = page["names"], page["s"]
    size, left, top, rows = 76, 44, 40, len(names)
    parts = []
    for i, name in enumerate(names):
        middle = (i + 0.5) * size
        parts.append(text(left + middle, top - 18, name, font_weight="bold"))
        parts.append(text(left - 22, top + middle, name, font_weight="bold"))
        for k in range(rows):
            x, y = left + k * size, top + i * size
            fill = ORANGE if k == i else GREEN if k == (i + rows // 2) % rows else FAINT
            parts.append(rectangle(x + 2, y + 2, size - 4, size - 4, fill, rx=6))
            if k == i:  # crossed out
                corners = [(x + 10, y + size - 10), (x + size - 10, y + 10)]
                parts.append(line(corners, DARK, stroke_width=1.5, opacity=0.55))
            value = f"{similar[i, k]:.3f}".replace("-", "−")
            weight = "bold" if fill == GREEN else "normal"
            parts.append(text(x + size / 2, y + size / 2, value, DARK, font_weight=weight))
    outline = {"stroke": BLUE, "stroke_width": 4, "rx": 9}
    parts.append(rectangle(left - 2, top - 2, rows * size + 4, size + 4, "none", **outline))
    return svg(660, top + rows * size + 8, parts + legend(left + rows * size + 34, top, size))


def legend(x: float, y: float, step: float) -> list[str]:
    """What the colors of the matrix mean, a line of it for every row."""
    lines = [
        (None, "the row being read", "A1 asks: which one is my partner?"),
        (GREEN, "positive pair", "the right answer, the label"),
        (FAINT, "negative", "the wrong answers"),
        (ORANGE, "self pair", "set to −∞: takes no part"),
    ]
    parts = []
    for number, (fill, name, meaning) in enumerate(lines):
        middle = y + (number + 0.5) * step
        outline = {} if fill else {"stroke": BLUE, "stroke_width": 3}
        parts.append(rectangle(x, middle - 11, 22, 22, fill or "none", rx=4, **outline))
        if fill == ORANGE:
            parts.append(line([(x + 4, middle + 7), (x + 18, middle - 7)], DARK, opacity=0.55))
        parts.append(text(x + 34, middle - 9, name, text_anchor="start", font_weight="bold"))
        parts.append(text(x + 34, middle + 11, meaning, text_anchor="start", font_size=14))
    return parts


def tiles() -> str:
    """The upper triangle of tiles, and where the sums of one of them go."""
    left, top, end = TILES_LEFT, TILES_TOP, TILES_LEFT + COUNT * SIZE
    sums = end + 56
    parts = [tile(i, k) for i in range(COUNT) for k in range(COUNT)]
    ends = {"stroke_width": 5, "stroke_linecap": "round"}
    parts.append(line([(left + 6, top + 6), (end - 6, top + COUNT * SIZE - 6)], ORANGE, **ends))
    half = [(left + COUNT * SIZE // 2 + 6, top + 6), (end - 6, top + COUNT * SIZE // 2 - 6)]
    parts.append(line(half, GREEN, **ends, stroke_dasharray="14 8"))
    x, row, mirror = center(COLUMN, left), center(ROW, top), center(COLUMN, top)
    parts.append(text(center(ROW, left), mirror, "mirror", font_size=13))
    for number in range(COUNT):
        color = BLUE if number in (ROW, COLUMN) else FAINT
        parts.append(rectangle(sums, top + number * SIZE + 2, 30, SIZE - 4, color, rx=5))
    parts += [
        arrow([(end - SIZE - 2, row), (sums - 3, row)], BLUE),
        arrow([(x, top + (ROW + 1) * SIZE), (x, mirror), (sums - 3, mirror)], BLUE),
        text(left - 34, row, "rows I", font_size=14),
        text(left - 34, mirror, "rows K", font_size=14),
        text(x, top - 18, "columns K", font_size=14),
        text(sums + 15, top - 18, "sums", font_size=14),
        text(sums + 42, row, "+ its row sums", text_anchor="start", font_size=14),
        text(sums + 42, mirror, "+ its column sums", text_anchor="start", font_size=14),
    ]
    bottom = top + COUNT * SIZE
    return svg(680, bottom + 52, parts + tiles_legend(left, bottom + 28))


def tile(i: int, k: int) -> str:
    """Filled where it is computed, dashed below the diagonal."""
    place = (TILES_LEFT + k * SIZE + 2, TILES_TOP + i * SIZE + 2, SIZE - 4, SIZE - 4)
    if k >= i:
        return rectangle(*place, BLUE if (i, k) == (ROW, COLUMN) else FAINT, rx=5)
    mirror = (i, k) == (COLUMN, ROW)
    style = {"stroke": BLUE if mirror else INK, "stroke_width": 2 if mirror else 1}
    return rectangle(*place, "none", rx=5, stroke_dasharray="4 4", **style)


def center(number: int, edge: float) -> float:
    """The middle of a tile along a side."""
    return edge + (number + 0.5) * SIZE


def tiles_legend(x: float, y: float) -> list[str]:
    """One line below the tiles."""
    keys = [(ORANGE, "none", "self pairs"), (GREEN, "11 6", "positive pairs")]
    parts = []
    for color, dashes, name in keys:
        style = {"stroke_width": 5, "stroke_linecap": "round", "stroke_dasharray": dashes}
        parts.append(line([(x + 3, y), (x + 30, y)], color, **style))
        parts.append(text(x + 42, y, name, text_anchor="start", font_size=14))
        x += 150
    parts.append(rectangle(x, y - 10, 20, 20, "none", rx=4, stroke=INK, stroke_dasharray="4 4"))
    parts.append(text(x + 32, y, "never computed", text_anchor="start", font_size=14))
    return parts


def rooms() -> str:
    """The rooms in layers, and who asks whom."""
    middle, left, right, forms = 340, 145, 535, 6 * LAYER + 4
    parts = [
        room(140, 0, 400, "_losses, _modules", "the public functions: words, defaults", True),
        room(140, 1, 400, "_formula", "the family of losses, once"),
        room(20, 2, 250, "_spec, _checks", "what is refused, and how it is said"),
        room(410, 2, 250, "_closed_form", "losses with their gradients"),
        room(140, 3, 400, "_operations", "the steps, in a framework's operations", True),
        room(140, 4, 400, "_pairs/logsumexp", "which form serves all pairs of rows", True),
        room(20, 5, 250, "_transforms", "while something traces", True),
        room(410, 5, 250, "_processes", "against the rows of others", True),
        # one of these, in a frame
        rectangle(10, forms, 660, BOX + 20, "none", rx=9, stroke=INK, stroke_dasharray="4 4"),
        room(20, 6.12, 150, "_pairs/dense", "the whole matrix", True),
        room(183, 6.12, 151, "_pairs/one_tile", "a small batch", True),
        room(347, 6.12, 150, "_pairs/tiled", "tile by tile", True),
        room(510, 6.12, 150, "_kernels", "on a CUDA GPU", True),
    ]
    parts += [down(middle, *layers) for layers in ((0, 1), (1, 3), (3, 4), (4, 6))]
    parts += [down(left, *layers) for layers in ((1, 2), (4, 5), (5, 6))]
    parts += [down(right, *layers) for layers in ((1, 2), (2, 3), (4, 5), (5, 6))]
    y = forms + BOX + 38
    parts += [
        rectangle(20, y, 20, 20, FAINT, rx=4),
        text(50, y + 10, "once, for all backends", text_anchor="start", font_size=14),
        rectangle(240, y, 20, 20, "none", rx=4, stroke=BLUE, stroke_width=2),
        text(270, y + 10, "one in each backend that needs it", text_anchor="start", font_size=14),
    ]
    return svg(680, y + 30, parts)


def room(x: float, layer: float, width: float, name: str, does: str, own: bool = False) -> str:
    """A box with its name and what it does; its own in each backend, or one for all."""
    y, middle = layer * LAYER + 4, x + width / 2
    outline = {"stroke": BLUE, "stroke_width": 2} if own else {}
    color, small = INK if own else DARK, 13 if width < 200 else 14
    return "\n".join(
        [
            rectangle(x, y, width, BOX, "none" if own else FAINT, rx=6, **outline),
            text(middle, y + 18, name, color, font_weight="bold", font_family="monospace"),
            text(middle, y + 38, does, color, font_size=small),
        ]
    )


def down(x: float, upper: int, lower: int) -> str:
    """An arrow from one layer to a lower one."""
    begin, end = upper * LAYER + BOX + 8, lower * LAYER
    head = f'<polygon points="{x},{end} {x - 5},{end - 9} {x + 5},{end - 9}" fill="{INK}"/>'
    return line([(x, begin), (x, end - 8)], INK, stroke_width=2) + head


def errors(temperature: float) -> dict[str, tuple[float, float]]:
    """Relative errors in float32 of loss and gradient, by form; views 3 % apart.

    The truth is step 4 in float64, whose own error is smaller by nine digits. Its float32 needs the
    room that rows of unit length leave it; past that the library's running maximum goes on.
    """
    from ntxent.numpy import nt_xent, value_and_grad

    page = steps()
    rng = np.random.default_rng(0)
    view, noise = rng.standard_normal((2, 256, 128))
    views = np.stack([view, view + 0.03 * noise]).astype(np.float32)
    tau = float(np.float32(temperature))
    truth, slopes = page["tiled"](*views.astype(np.float64), tau)
    found = {
        "logsumexp − positive (step 3)": page["matrix_and_gradient"](*views, tau),
        "softplus (ntxent.numpy)": value_and_grad(nt_xent)(*views, temperature=tau),
    }
    if 1 / tau + np.log(512) <= 46:
        found["softplus (step 4)"] = page["tiled"](*views, tau)
    return {
        name: (
            abs(loss / truth - 1),
            np.abs(np.stack(gradients) - slopes).max() / np.abs(slopes).max(),
        )
        for name, (loss, gradients) in found.items()
    }


def plot_errors(path: Path) -> None:
    """Both errors against the temperature."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.use("Agg")
    mpl.rcParams |= {"svg.hashsalt": "ntxent", "svg.fonttype": "none", "font.family": "sans-serif"}
    mpl.rcParams |= dict.fromkeys(
        ["text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"], INK
    )
    mpl.rcParams |= {"font.size": 12, "legend.frameon": False}
    found = {tau: errors(tau) for tau in np.geomspace(1, 0.01, 21)}
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained", sharey=True)
    for number, (axis, title) in enumerate(zip(axes, ("loss", "gradient"), strict=True)):
        for name, style in STYLES.items():
            points = [
                (tau, max(error[name][number], 1e-9))
                for tau, error in found.items()
                if name in error
            ]
            axis.plot(*zip(*points, strict=True), **style, label=name, markersize=5)
        axis.set_title(f"error of the {title}")
        dress(axis)
    axes[0].set_ylabel("relative, in float32")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)


def dress(axis: Any) -> None:
    """Both axes logarithmic, the temperature falling to the right."""
    axis.set(xscale="log", yscale="log", xlabel="temperature τ")
    axis.set_xticks(TICKS, [f"{tau:g}" for tau in TICKS])
    axis.minorticks_off()
    axis.invert_xaxis()
    axis.grid(color=INK, alpha=0.25, linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Those that are named, or all."""
    FIGURES.mkdir(exist_ok=True)
    written_out = {"similarities": similarities, "tiles": tiles, "rooms": rooms}
    names = sys.argv[1:] or [*written_out, "errors"]
    for name in names:
        if name == "errors":
            plot_errors(FIGURES / "errors.svg")
        else:
            (FIGURES / f"{name}.svg").write_text(written_out[name]())


if __name__ == "__main__":
    main()
