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

COMMON = {"normalize": True, "reduction": "mean", "implementation": None}
TAU = {"temperature": _spec.TEMPERATURE}
SIGNATURES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "nt_xent": (["*views"], TAU | {"ids": None, "denominator": "all"} | COMMON),
    "sup_con": (["z", "labels"], TAU | COMMON),
    "info_nce": (
        ["query", "key", "negatives=None"],
        TAU | {"ids": None, "symmetric": False} | COMMON,
    ),
}
# One argument for a batch over processes, in the framework's own words.
ACROSS: dict[str, dict[str, Any]] = {
    "torch": {"group": None, "exchange": None},
    "jax": {"axis_name": None, "exchange": None},
    "tensorflow": {"cross_replica": False},
}
MODULES = {"NTXentLoss": "nt_xent", "SupConLoss": "sup_con", "InfoNCELoss": "info_nce"}


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_signature_is_the_one_of_the_design(backend: Any, name: str) -> None:
    positional, wanted = SIGNATURES[name]
    parameters = inspect.signature(getattr(backend.module, name)).parameters.values()
    keywords = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    arrays = [p.replace(annotation=p.empty) for p in parameters if p not in keywords]
    assert [str(p) for p in arrays] == positional
    wanted = wanted | ACROSS.get(backend.name, {})
    assert [(p.name, p.default) for p in keywords] == list(wanted.items())


@pytest.mark.only("torch")
@pytest.mark.parametrize("name", MODULES)
def test_the_module_takes_what_the_function_takes(name: str) -> None:
    import ntxent.torch

    parameters = inspect.signature(getattr(ntxent.torch, name)).parameters
    defaults = {p.name: p.default for p in parameters.values() if p.name != "learn_temperature"}
    _, wanted = SIGNATURES[MODULES[name]]
    wanted = wanted | ACROSS["torch"]
    assert defaults == {name: value for name, value in wanted.items() if name != "ids"}


def public(module: Any) -> list[Any]:
    return [getattr(module, name) for name in module.__all__ if not name.startswith("_")]


def test_every_public_name_is_documented_with_its_sections(backend: Any) -> None:
    for thing in public(backend.module):
        doc = inspect.getdoc(thing)
        assert doc, thing
        for section in ("Parameters", "Raises", "Notes", "Examples"):
            assert f"{section}\n{'-' * len(section)}" in doc, f"{thing.__name__} lacks {section}"


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_backends_document_the_loss_in_the_same_words(backend: Any, name: str) -> None:
    """Where a sentence is about the loss, not about frameworks or processes, it is the same."""
    others = r"tensor|ndarray|array|dtype|>>>|tile|process|replica|shard|exchange|gather"
    import ntxent.numpy

    def sentences(doc: str | None) -> set[str]:
        text = re.sub(r"\s+", " ", doc or "")
        return {s for s in text.split(". ") if not re.search(others, s, re.IGNORECASE)}

    ours, theirs = (
        sentences(getattr(module, name).__doc__) for module in (ntxent.numpy, backend.module)
    )
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
NAMES = ("README.md", "docs/index.md", "docs/formula.md", "docs/which-loss.md")
PAGES = [ROOT / name for name in NAMES]


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
