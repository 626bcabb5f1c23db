"""Sphinx: MyST Markdown, furo, autodoc over the public modules, formulas as MathML."""

import re
import sys
from pathlib import Path
from typing import Any

import ntxent

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "ntxent"
author = "the ntxent developers"
version = release = ntxent.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "mathml",
]
autodoc_typehints = "none"  # the numpydoc sections say more
napoleon_numpy_docstring = True
napoleon_use_rtype = False
default_role = "py:obj"  # `nt_xent` in a docstring is a link, where there is such a name
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
linkcheck_ignore = ["_images/"]  # a picture's link to itself, within the site
html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = f"ntxent {version}"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
nitpick_ignore_regex = [
    # numpydoc's informal types ("float or 0-d Tensor", "shape (N, d)") are words, not references,
    ("py:class", r".*"),
    ("py:obj", r"(?!ntxent\.[a-z]).*"),  # and most code between backticks names no object of ours
]


def link_pages(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Make links of the pages that docstrings name as files, `docs/numerics.md`."""
    del app, what, name, thing, options
    lines[:] = [re.sub(r"docs/([\w/-]+)\.md", r":doc:`/\1`", line) for line in lines]


def skip_frameworks(
    app: Any, what: str, name: str, member: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out what our classes have from those of a framework."""
    del app, what, name, options
    home = getattr(getattr(member, "fget", member), "__module__", None)
    return skip or not str(home).startswith("ntxent") or None


def show_sources(app: Any, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Let a link to a source file show it, not save it."""
    del app, page, template, tree
    context["body"] = context.get("body", "").replace('download=""', "")


def setup(app: Any) -> None:
    """What Sphinx calls."""
    app.connect("autodoc-process-docstring", link_pages)
    app.connect("autodoc-skip-member", skip_frameworks)
    app.connect("html-page-context", show_sources)
