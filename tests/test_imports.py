"""Who may import whom, and that importing one backend imports no other framework."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ntxent

SOURCE = Path(ntxent.__file__).parent
FRAMEWORKS = {"numpy", "torch", "jax", "tensorflow"}
# What each module of the root may import of the package; the rest of the root only from the stdlib.
ROOT = {
    "__init__": {"ntxent._diagnostics"},  # for types, and where it is asked for
    "__main__": {"ntxent"},
    "_words": set(),
    "_keywords": set(),
    "_checks": {"ntxent", "ntxent._words"},
    "_spec": {"ntxent._checks", "ntxent._words"},
    "_classes": set(),
    "_loops": set(),
    "_grid": set(),
    "_workers": set(),
    "_range": set(),
    "_pairs": set(),
    "_sums": {"ntxent", "ntxent._range", "ntxent._pairs"},
    "_protocol": {"ntxent", "ntxent._checks", "ntxent._classes"},
    "_row_stage": set(),
    "_closed": {"ntxent", "ntxent._classes", "ntxent._protocol", "ntxent._row_stage"},
    "_closed_info_nce": {
        "ntxent",
        "ntxent._closed",
        "ntxent._protocol",
        "ntxent._row_stage",
    },
    "_closed_ops": {"ntxent._classes", "ntxent._protocol"},
    "_formula": {
        "ntxent",
        "ntxent._spec",
        "ntxent._protocol",
        "ntxent._closed",
        "ntxent._closed_info_nce",
    },
    "reference": {"ntxent._loops"},
    "_to_numpy": {"ntxent", "ntxent._spec", "ntxent.numpy._ops"},
    "_diagnostics": {
        "ntxent",
        "ntxent._row_stage",
        "ntxent._spec",
        "ntxent._to_numpy",
        "ntxent.numpy._ops",
        "ntxent.numpy._tiled",
    },
    "plot": {"ntxent._checks", "ntxent._to_numpy"},
}
OUTSIDE = {name: {"numpy"} for name in ("reference", "_loops", "_to_numpy", "_diagnostics")}
OUTSIDE["plot"] = {"numpy", "matplotlib"}
# What comes with a framework, or, Triton, is imported where it is asked for.
BRINGS = {
    "numpy": {"threadpoolctl"},
    "jax": {"numpy"},
    "tensorflow": {"keras", "numpy"},
    "torch": {"threadpoolctl", "triton"},
}
KERNELS = {"_tiled", "_tile", "_matrix", "_exclusion", "_pair_logsumexp", "_dense", "_operators"}
KERNELS |= {"_class_sums", "_dense_across", "_processes", "_card", "_shards"}
KERNELS |= {f"_triton{part}" for part in ("", "_blocks", "_scores", "_forward", "_backward")}


def imported(path: Path) -> set[str]:
    """The modules that a file names in its imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names.add(node.module or "")
            if node.module == "ntxent":
                names |= {f"ntxent.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", sorted(SOURCE.glob("*.py")), ids=lambda path: path.stem)
def test_the_root_imports_no_framework(path: Path) -> None:
    names = imported(path)
    allowed = ROOT[path.stem]
    ours = {name for name in names if name.split(".")[0] == "ntxent"}
    assert ours <= allowed | {"ntxent"} if allowed else not ours
    outside = {name.split(".")[0] for name in names - ours} - sys.stdlib_module_names
    assert outside <= OUTSIDE.get(path.stem, set())


BACKENDS = sorted(path for path in SOURCE.glob("*/*.py") if path.parent.name in FRAMEWORKS)


@pytest.mark.parametrize("path", BACKENDS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_backend_imports_its_own_framework_alone(path: Path) -> None:
    backend = path.parent.name
    names = imported(path)
    outside = {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"ntxent"}
    assert outside <= {backend, *BRINGS.get(backend, ())}
    ours = {name for name in names if name.startswith("ntxent.")}
    others = {f"ntxent.{name}" for name in FRAMEWORKS - {backend}}
    assert not any(name.startswith(tuple(others)) for name in ours)
    assert "triton" not in outside or path.stem.startswith(("_triton", "_implementations"))
    if path.stem in KERNELS:
        assert "ntxent._formula" not in ours
        assert f"ntxent.{backend}._losses" not in ours


def loaded(statement: str) -> set[str]:
    """The frameworks in sys.modules after a statement in a fresh interpreter."""
    code = f"{statement}\nimport sys\nprint(*[m for m in {sorted(FRAMEWORKS)} if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    return set(found.stdout.split())


def test_importing_torch_losses_loads_no_compiler() -> None:
    """Dynamo takes two seconds, and Triton aborts where TensorFlow was loaded before it."""
    pytest.importorskip("torch")
    heavy = ("torch._dynamo", "triton", "ntxent.torch._triton", "ntxent.torch._one_node")
    code = f"import ntxent.torch, sys; print(*[m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not found.stdout.strip()


def test_importing_the_package_loads_no_framework() -> None:
    assert loaded("import ntxent; ntxent.available_backends()") == set()
    assert loaded("import ntxent; ntxent.diagnostics, ntxent.plot") == {"numpy"}


def test_importing_a_backend_loads_no_other_framework(backend: Any) -> None:
    found = loaded(f"import ntxent.{backend.name}")
    assert backend.name in found
    by_itself = loaded(f"import {backend.name}")  # TensorFlow loads JAX where it is installed
    assert found - by_itself <= {"numpy"}


def test_the_package_can_be_looked_through_without_matplotlib() -> None:
    code = "import sys; sys.modules['matplotlib'] = None; import inspect, ntxent"
    code += "; print(*dict(inspect.getmembers(ntxent)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = set(found.stdout.split())
    assert {"diagnostics", "available_backends"} <= names
    assert "plot" not in names


@pytest.mark.parametrize(
    ("name", "framework"),
    [("torch", "PyTorch"), ("jax", "JAX"), ("tensorflow", "TensorFlow"), ("plot", "matplotlib")],
)
def test_a_missing_framework_says_what_to_install(name: str, framework: str) -> None:
    module = "matplotlib" if name == "plot" else name
    code = f"import sys\nsys.modules['{module}'] = None\nimport ntxent.{name}"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    words = f'ntxent.{name} needs {framework}; install it with: pip install "ntxent[{name}]"'
    assert found.returncode != 0
    assert f"ImportError: {words}" in found.stderr
