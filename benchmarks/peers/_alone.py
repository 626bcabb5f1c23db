"""A module of a package without the package: what its `__init__` files import may not be there.

The losses that are compared need their framework alone; their packages also want torchvision,
transformers or Lightning, which are large and have nothing to do with a loss.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any


def alone(path: str, stand_ins: Mapping[str, Mapping[str, Any]] | None = None) -> Any:
    """The module; beside it, by their paths, the names in modules that wouldn't import here."""
    for other, names in (stand_ins or {}).items():
        parent, _, last = other.rpartition(".")
        module = ModuleType(other)
        module.__dict__.update(names)
        sys.modules[other] = module
        setattr(empty(parent), last, module)
    empty(path.rpartition(".")[0])
    return import_module(path)


@cache
def empty(path: str) -> ModuleType:
    """A package, and those that it is in, of which nothing is run: only its folder is known."""
    parent, _, last = path.rpartition(".")
    if parent:
        folder = Path(empty(parent).__path__[0]) / last
    else:
        found = find_spec(path)
        if found is None or found.origin is None:
            msg = f"{path} isn't installed; install it with: pip install --no-deps {path}"
            raise ImportError(msg)
        folder = Path(found.origin).parent
    spec = ModuleSpec(path, None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    sys.modules[path] = module_from_spec(spec)
    return sys.modules[path]
