"""The same names, order and defaults in every backend, in the same words."""

from __future__ import annotations

import inspect
import re
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


def test_the_version_is_the_package_metadata() -> None:
    from importlib.metadata import version

    assert version("ntxent") == ntxent.__version__
