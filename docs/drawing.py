"""What the drawings of the pages are made of, as SVG.

Their ground is transparent, and what stands on it is of a middle tone: they serve light and dark
pages. Colors are Okabe and Ito's, to be told apart by all eyes, and none means anything alone.
"""

from __future__ import annotations

from typing import Any

GREEN, ORANGE, BLUE = "#009e73", "#e69f00", "#3b8ed0"
INK, FAINT, DARK = "#777b81", "#c3c8cf", "#15181b"  # ink reads on white as on near-black, 4.2 : 1


def svg(width: int, height: int, parts: list[str]) -> str:
    """A drawing of these parts."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="15">'
    )
    return "\n".join([head, *parts, "</svg>\n"])


def rectangle(x: float, y: float, width: float, height: float, fill: str, **style: Any) -> str:
    """Its upper left corner at (x, y)."""
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}"{written(style)}/>'
    )


def line(points: list[tuple[float, float]], color: str, **style: Any) -> str:
    """From point to point."""
    path = " ".join(f"{x},{y}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{color}"{written(style)}/>'


def arrow(points: list[tuple[float, float]], color: str) -> str:
    """A line to the right at its end, with a head."""
    x, y = points[-1]
    head = f'<polygon points="{x},{y} {x - 10},{y - 5} {x - 10},{y + 5}" fill="{color}"/>'
    return line([*points[:-1], (x - 8, y)], color, stroke_width=2.5) + head


def text(x: float, y: float, words: str, color: str = INK, **style: Any) -> str:
    """Centered at (x, y) unless told otherwise."""
    style = {"text_anchor": "middle", "dominant_baseline": "central"} | style
    return f'<text x="{x}" y="{y}" fill="{color}"{written(style)}>{words}</text>'


def written(style: dict[str, Any]) -> str:
    """Attributes as SVG wants them."""
    return "".join(f' {key.replace("_", "-")}="{value}"' for key, value in style.items())
