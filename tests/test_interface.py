"""The same names, order and defaults in every backend, documented."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import ntxent
from ntxent import _spec

SIGNATURE = {
    "temperature": _spec.TEMPERATURE,
    "ids": None,
    "denominator": "all",
    "normalize": True,
    "reduction": "mean",
    "implementation": None,
}


def test_the_signature_is_the_one_of_the_design(backend: Any) -> None:
    views, *keywords = inspect.signature(backend.module.nt_xent).parameters.values()
    assert views.kind is inspect.Parameter.VAR_POSITIONAL
    assert {p.name: p.default for p in keywords} == SIGNATURE
    assert [p.name for p in keywords] == list(SIGNATURE)
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in keywords)


@pytest.mark.only("torch")
def test_the_module_takes_what_the_function_takes() -> None:
    from ntxent.torch import NTXentLoss

    parameters = inspect.signature(NTXentLoss).parameters
    defaults = {p.name: p.default for p in parameters.values() if p.name != "learn_temperature"}
    assert defaults == {name: value for name, value in SIGNATURE.items() if name != "ids"}


def public(module: Any) -> list[Any]:
    return [getattr(module, name) for name in module.__all__ if not name.startswith("_")]


def test_every_public_name_is_documented_with_its_sections(backend: Any) -> None:
    for thing in public(backend.module):
        doc = inspect.getdoc(thing)
        assert doc, thing
        for section in ("Parameters", "Raises", "Notes", "Examples"):
            assert f"{section}\n{'-' * len(section)}" in doc, f"{thing.__name__} lacks {section}"


def test_the_backends_document_the_loss_in_the_same_words(backend: Any) -> None:
    """Where a sentence is about the loss and not about the framework, it is the same in all."""
    from ntxent.numpy import nt_xent

    def sentences(doc: str | None) -> set[str]:
        text = re.sub(r"\s+", " ", doc or "")
        return {
            s
            for s in text.split(". ")
            if not re.search(r"tensor|ndarray|array|dtype|>>>|tile", s, re.IGNORECASE)
        }

    ours, theirs = sentences(nt_xent.__doc__), sentences(backend.module.nt_xent.__doc__)
    assert len(ours & theirs) > 0.8 * max(len(ours), len(theirs))


def test_the_examples_in_the_docstrings_run(backend: Any) -> None:
    tested = 0
    finder = doctest.DocTestFinder(recurse=False)
    for thing in public(backend.module):
        for test in finder.find(thing, thing.__name__, globs={}):
            result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test)
            assert result.failed == 0
            tested += result.attempted
    assert tested >= 4


@pytest.mark.parametrize("name", ["ntxent", "ntxent.reference"])
def test_the_examples_of_the_root_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


def test_the_version_is_the_package_metadata() -> None:
    from importlib.metadata import version

    assert version("ntxent") == ntxent.__version__


ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "docs/index.md", "docs/formula.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_in_the_pages_runs(backend: Any, page: Path) -> None:
    """Each block in the namespace of those before it; z1, z2 and x1, x2 are batches.

    A session runs the blocks of its backend, and those that need no framework.
    """
    import numpy as np

    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    assert blocks
    x1, x2 = np.random.default_rng(0).standard_normal((2, 8, 4)).astype(np.float32)
    z1, z2 = map(backend.from_numpy, (x1, x2))
    if backend.name == "torch":
        z1.requires_grad_()
    namespace = {"z1": z1, "z2": z2, "x1": x1, "x2": x2}
    run = 0
    for block in blocks:
        needed = set(re.findall(r"ntxent\.(torch|jax|tensorflow)", block))
        if needed <= {backend.name}:
            exec(block, namespace)  # noqa: S102 the pages are ours
            run += 1
    assert run >= (2 if page.name == "README.md" else 0)


@pytest.mark.only("torch")
def test_the_table_of_the_readme_is_the_one_of_the_results() -> None:
    """Made by a script, never by hand."""
    import subprocess
    import sys

    command = [sys.executable, "-m", "benchmarks", "--check-readme"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
