"""`python -m ntxent` and what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import ntxent

EVERYWHERE = ("numpy", "torch", "jax", "tensorflow")


@cache
def printed(*options: str, after: str | None = None) -> str:
    """By the command, in an interpreter of its own; after a statement, if there is one."""
    code = f"import runpy, sys; {after}; sys.argv = {['', *options]}"
    code += "; runpy.run_module('ntxent', run_name='__main__')"
    program = ["-m", "ntxent", *options] if after is None else ["-c", code]
    found = subprocess.run(
        [sys.executable, "-W", "ignore", *program], capture_output=True, text=True, check=True
    )
    return found.stdout


def entries(found: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [entry for entry in found["backends"] if entry["backend"] == name]


def test_json_and_the_table_tell_the_same() -> None:
    found = json.loads(printed("--json"))
    first, empty, header, *lines = printed().splitlines()
    assert first == f"ntxent {ntxent.__version__}, Python {found['python']}, {found['system']}"
    assert not empty
    assert header.split() == ["backend", "version", "device", "chosen", "implementations"]
    assert len(lines) == len(found["backends"])
    for line, entry in zip(lines, found["backends"], strict=True):
        shown = ("backend", "version", "device", "chosen") if entry["version"] else ("backend",)
        for key in shown:
            column = header.index(key)
            assert line[column:].startswith(entry[key])
    installed = {entry["backend"] for entry in found["backends"] if entry["version"]}
    assert installed == set(ntxent.available_backends())
    assert {entry["backend"] for entry in found["backends"]} == set(EVERYWHERE)


def test_it_tells_what_the_backend_would_choose(backend: Any) -> None:
    found = entries(json.loads(printed("--json")), backend.name)
    assert [entry["device"] for entry in found]
    for entry in found:
        assert entry["chosen"] in entry["implementations"] == list(backend.ops.IMPLEMENTATIONS)


def test_a_missing_framework_is_listed_with_its_remedy() -> None:
    missing = "sys.modules['jax'] = None"
    (entry,) = entries(json.loads(printed("--json", after=missing)), "jax")
    assert entry == {"backend": "jax", "version": None, "install": 'pip install "ntxent[jax]"'}
    (line,) = (line for line in printed(after=missing).splitlines() if line.startswith("jax"))
    assert "not installed" in line
    assert line.endswith('pip install "ntxent[jax]"')


def test_a_broken_framework_is_listed_with_its_error(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('no libcudart\\nin any folder')")
    planted = f"sys.path.insert(0, {str(tmp_path)!r})"
    found = json.loads(printed("--json", after=planted))
    error = "OSError: no libcudart\nin any folder"
    assert entries(found, "torch") == [{"backend": "torch", "version": None, "error": error}]
    assert entries(found, "numpy")[0]["version"]  # the others are listed as ever
    (line,) = (line for line in printed(after=planted).splitlines() if line.startswith("torch"))
    assert line.split() == ["torch", "-", "broken", "-", "OSError:", "no", "libcudart"]
