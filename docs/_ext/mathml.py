"""Formulas as MathML, made by the build: readable without a network and without JavaScript.

Browsers lay it out themselves. The font is the one that `ziamath` brings, copied beside the pages,
because a system need not have a font for mathematics.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ziamath
from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util.fileutil import copy_asset_file
from sphinx.util.logging import getLogger

logger = getLogger(__name__)

FONT = Path(ziamath.__file__).parent / "fonts" / "STIXTwoMath-Regular.ttf"
UPRIGHT = r'(?:<mi mathvariant="normal">\w</mi>)'
OPENS = r'(?!<mo stretchy="false">&#x00028;)'
REPAIRS: list[tuple[str, Callable[[re.Match[str]], str]]] = [
    # TeX's thin space between a function and an operand without brackets
    (rf"<mi>(exp|log)</mi>{OPENS}", lambda m: f'{m[0]}<mspace width="0.17em"/>'),
    # and none around a slash
    (r"<mo>&#x0002F;</mo>", lambda _: '<mo lspace="0" rspace="0">/</mo>'),
    # bars as high as TeX's, whatever is between them
    (r"<mo>&#x02016;</mo>", lambda _: '<mo stretchy="false" lspace="0" rspace="0">‖</mo>'),
    # a sign, not a difference
    (r"(<mo[^>]*>(?:&#x000(?:28|2C|3D);|[(\[])</mo>)<mo>", lambda m: f'{m[1]}<mo form="prefix">'),
    # one name, not letters beside each other
    (UPRIGHT + "{2,}", lambda m: f"<mi>{''.join(re.findall('>(.)<', m[0]))}</mi>"),
    # browsers know the letter, not the variant
    (r'<mi mathvariant="script">(.)</mi>', lambda m: f"<mi>{script(m[1])}</mi>"),
]


def script(letter: str) -> str:
    """The capital in script, as a character."""
    return unicodedata.lookup(f"MATHEMATICAL SCRIPT CAPITAL {letter}")


def mathml(latex: str, display: str) -> str:
    """The formula as a `<math>` element."""
    made = convert(latex.replace("{aligned}", "{align*}"), display=display)
    if "\\" in made or "<mi>&</mi>" in made:
        logger.warning("no MathML for the formula %s", latex)
    for pattern, repair in REPAIRS:
        made = re.sub(pattern, repair, made)
    return made


def visit_inline(translator: Any, node: nodes.math) -> None:
    """Within a line."""
    translator.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def visit_block(translator: Any, node: nodes.math_block) -> None:
    """On its own, in a box that scrolls where the page is narrower than the formula."""
    latex = node.astext().strip()
    translator.body.append(f'<div class="formula">{mathml(latex, "block")}</div>\n')
    raise nodes.SkipNode


def copy_font(app: Sphinx, error: Exception | None) -> None:
    """Beside the style sheet that names it."""
    if error is None and app.builder.format == "html":
        copy_asset_file(FONT, app.outdir / "_static")


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    app.connect("build-finished", copy_font)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
