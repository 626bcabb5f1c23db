"""Sphinx: MyST Markdown, furo, autodoc over the public modules."""

import ntxent

project = "ntxent"
author = "the ntxent developers"
version = release = ntxent.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
# A bare machine builds these pages: the signatures are there, the framework need not be.
autodoc_mock_imports = [
    "torch",
    "jax",
    "tensorflow",
    "keras",
    "matplotlib",
    "ntxent.torch._operators",
]
autodoc_typehints = "none"  # the numpydoc sections say more
autodoc_member_order = "bysource"
napoleon_numpy_docstring = True
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"ntxent {version}"
nitpick_ignore_regex = [
    # numpydoc's informal types ("float or 0-d Tensor", "shape (N, d)") are words, not references
    ("py:class", r".*"),
]
