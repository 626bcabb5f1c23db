"""Who may import whom, and that importing one backend imports no other framework."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Container
from pathlib import Path
from typing import Any

import pytest

import ntxent

SOURCE = Path(ntxent.__file__).parent
FRAMEWORKS = {"numpy", "torch", "jax", "tensorflow"}
# What each room of the root may import of the package; nothing else of it knows a framework.
ROOT: dict[str, set[str]] = {
    "__init__": {"_diagnostics"},  # for types, and where it is asked for
    "__main__": set(),
    "_checks": {"_checks"},
    "_spec": {"_checks"},
    "_labels": set(),
    "_plain_loops": set(),
    "_pairs": {"_pairs"},
    "_protocol": {"_checks", "_labels"},
    "_closed_form": {"_closed_form", "_labels", "_protocol"},
    "_formula": {"_closed_form", "_protocol", "_spec"},
    "reference": {"_plain_loops"},
    "_any_backend": {"_spec", "numpy"},
    "_diagnostics": {"_any_backend", "_closed_form", "_spec", "numpy"},
    "plot": {"_any_backend", "_checks"},
}
OUTSIDE = {
    name: {"numpy"} for name in ("reference", "_plain_loops", "_any_backend", "_diagnostics")
}
OUTSIDE["plot"] = {"numpy", "matplotlib"}
# What comes with a framework, or, Triton, is imported where it is asked for.
BRINGS = {
    "numpy": {"threadpoolctl"},
    "jax": {"numpy"},
    "tensorflow": {"keras", "numpy"},
    "torch": {"threadpoolctl", "triton"},
}
# The rooms that the formula is written over: they know nothing of it.
BELOW = {"_pairs", "_kernels", "_processes", "_transforms"}


def imported(path: Path) -> set[str]:
    """The modules that a file names in its imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names.add(node.module or "")
            if (node.module or "").startswith("ntxent"):  # of a room, or a name in a module
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def name_of(path: Path) -> str:
    """Where the file is in the package, for a test's name."""
    return path.relative_to(SOURCE).with_suffix("").as_posix()


EVERYTHING = sorted(SOURCE.rglob("*.py"))
BACKENDS = [path for path in EVERYTHING if name_of(path).split("/")[0] in FRAMEWORKS]
THE_ROOT = [path for path in EVERYTHING if path not in BACKENDS]


@pytest.mark.parametrize("path", THE_ROOT, ids=name_of)
def test_the_root_imports_no_framework(path: Path) -> None:
    room, names = name_of(path).split("/")[0], imported(path)
    ours = {name for name in names if name.split(".")[0] == "ntxent"}
    assert {name.split(".")[1] for name in ours - {"ntxent"}} <= ROOT[room]
    outside = {name.split(".")[0] for name in names - ours} - sys.stdlib_module_names
    assert outside <= OUTSIDE.get(room, set())


@pytest.mark.parametrize("path", BACKENDS, ids=name_of)
def test_a_backend_imports_its_own_framework_alone(path: Path) -> None:
    backend, *rooms = name_of(path).split("/")
    names = imported(path)
    outside = {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"ntxent"}
    assert outside <= {backend, *BRINGS.get(backend, ())}
    ours = {name for name in names if name.startswith("ntxent.")}
    others = tuple(f"ntxent.{name}" for name in FRAMEWORKS - {backend})
    assert not any(name.startswith(others) for name in ours)
    assert "triton" not in outside or rooms[0] == "_kernels" or rooms[-1] == "implementations"
    if rooms[0] in BELOW:
        above = "ntxent._formula", f"ntxent.{backend}._losses", f"ntxent.{backend}._modules"
        assert not any(name.startswith(above) for name in ours)


def needed(path: Path, files: Container[str]) -> set[str]:
    """The modules that a file needs; a room itself only where a name of its `__init__` is asked."""
    found = {name for name in imported(path) if name in files}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and all(
            f"{node.module}.{alias.name}" in files for alias in node.names
        ):
            found.discard(node.module or "")
    return found


def test_no_module_imports_itself_by_way_of_others() -> None:
    """No circles: a file can be read after those that it imports."""
    dotted = {path: f"ntxent/{name_of(path)}".replace("/", ".") for path in EVERYTHING}
    files = {name.removesuffix(".__init__"): path for path, name in dotted.items()}
    needs = {name: needed(path, files) - {name} for name, path in files.items()}
    while leaves := [name for name, others in needs.items() if not others]:
        for name in leaves:
            del needs[name]
        needs = {name: others.difference(leaves) for name, others in needs.items()}
    assert not needs


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
    heavy = (
        "torch._dynamo",
        "triton",
        "ntxent.torch._kernels.launch",
        "ntxent.torch._transforms.nodes",
    )
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
