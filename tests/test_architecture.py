"""What docs/architecture.md names is there: rooms, files, and functions in their files."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ntxent

SOURCE = Path(ntxent.__file__).parent
PAGE = (Path(__file__).parents[1] / "docs/architecture.md").read_text()
BACKENDS = ("torch", "numpy", "jax", "tensorflow")
FILE = re.compile(r"`([\w/]+\.py)`")
STOP = re.compile(r"`([\w.]+)`\s+\(`([\w/]+\.py)`\)")  # a function, and in brackets its file


def cells() -> Iterator[tuple[str, str, str]]:
    """The cells of tables, each with its row's first and its heading."""
    heads: list[str] = []
    for line in PAGE.splitlines():
        row = [cell.strip() for cell in line.strip("|").split("|")] if line[:1] == "|" else []
        if not row or not heads:
            heads = row
        else:
            yield from ((row[0].strip("`"), *cell) for cell in zip(heads, row, strict=True))


def files() -> Iterator[str]:
    """All that the page names; in a backend's column they are below its folder, or the room's."""
    for room, head, cell in cells():
        home = head.strip("`") if head.strip("`/") in BACKENDS else ""
        folder = f"{home}{room}/" if home and (SOURCE / home / room).is_dir() else home
        yield from (folder + name for name in FILE.findall(cell))
    text = re.sub(r"^\|.*", "", PAGE, flags=re.MULTILINE)
    yield from (name for name in FILE.findall(text) if not name.startswith("tests/"))


def defined(path: Path) -> set[str]:
    """The functions and classes of a file, and `Class.method`."""
    found = set()
    kinds = ast.FunctionDef | ast.ClassDef
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, kinds):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{x.name}" for x in node.body if isinstance(x, kinds)}
    return found


def rooms() -> Iterator[Path]:
    """Files and folders of the package, and of its backends."""
    for home in (SOURCE, *(SOURCE / backend for backend in BACKENDS)):
        for path in home.iterdir():
            folder = path.is_dir() and path.name not in (*BACKENDS, "__pycache__")
            if folder or (path.suffix == ".py" and path.name != "__init__.py"):
                yield path


def test_every_file_that_is_named_exists() -> None:
    named = set(files())
    assert len(named) > 60
    assert not [name for name in named if not (SOURCE / name).is_file()]


@pytest.mark.parametrize(("function", "file"), sorted(set(STOP.findall(PAGE))))
def test_every_function_that_is_named_is_in_its_file(function: str, file: str) -> None:
    assert function in defined(SOURCE / file)


def test_every_room_is_named() -> None:
    named = [SOURCE / name for name in files()]
    missing = [room for room in rooms() if not any(x == room or room in x.parents for x in named)]
    assert not missing
