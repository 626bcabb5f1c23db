"""The docstrings are whole, and each check of the documentation (docs/checks) finds its faults."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import blocks
import commands
import docstrings
import offline
from blocks import Block

ROOTS = pytest.mark.parametrize("name", ["ntxent", "ntxent.reference", "ntxent.plot"])


def test_every_public_name_is_documented(backend: Any) -> None:
    assert docstrings.faults(backend.module) == []


@ROOTS
def test_every_public_name_of_the_roots_is_documented(name: str) -> None:
    assert docstrings.faults(importlib.import_module(name)) == []


def test_the_examples_in_the_docstrings_run(backend: Any) -> None:
    failed, attempted = docstrings.run_examples(backend.module)
    assert failed == 0
    assert attempted >= 20


@ROOTS
def test_the_examples_of_the_roots_run(name: str) -> None:
    failed, attempted = docstrings.run_examples(importlib.import_module(name))
    assert failed == 0
    assert attempted >= 2


WHOLE = """A loss.

Parameters
----------
z, labels
    As elsewhere.
tau : float, default 0.1
    The temperature.

Returns
-------
float
    The loss.

Raises
------
ValueError
    For no rows.

Notes
-----
Time O(n).

Examples
--------
>>> 1 + 1
2
"""


def planted(doc: str | None, of_method: str | None = "Of it.") -> ModuleType:
    """A module of ours with a function, and with a class that has a property."""

    def loss(z: Any, labels: Any, *, tau: float = 0.1) -> float:
        return tau

    class Loss:
        __doc__ = "\n".join(["A loss.", *WHOLE.splitlines()[13:]])  # from its errors on
        temperature = property(lambda self: 0.1, doc=of_method)

    module = ModuleType("ntxent.planted")
    loss.__doc__, loss.__module__, Loss.__module__ = doc, *["ntxent.planted.code"] * 2
    vars(module).update(__all__=["loss", "Loss"], loss=loss, Loss=Loss)
    return module


def test_a_name_that_is_documented_passes() -> None:
    names = {f"ntxent.planted.{x}" for x in ("loss", "Loss", "Loss.temperature")}
    assert docstrings.faults(planted(WHOLE), names) == []
    assert docstrings.run_examples(planted(WHOLE)) == (0, 2)


@pytest.mark.parametrize(
    ("doc", "fault"),
    [
        (None, "has no docstring"),
        (WHOLE.replace("tau :", "temperature :"), "explains the parameters"),
        (WHOLE.replace(", labels", ""), "explains the parameters"),
        *((WHOLE.replace(f"{x}\n---", "x\n---"), f"section {x}") for x in ("Returns", "Raises")),
        *((WHOLE.replace(f"{x}\n---", "x\n---"), f"section {x}") for x in ("Notes", "Examples")),
    ],
)
def test_a_name_that_is_not_documented_fails(doc: str | None, fault: str) -> None:
    (found,) = docstrings.faults(planted(doc))
    assert found.startswith("ntxent.planted.loss ")
    assert fault in found


def test_a_method_that_is_not_documented_fails() -> None:
    found = docstrings.faults(planted(WHOLE, None))
    assert found == ["ntxent.planted.Loss.temperature has no docstring"]


def test_a_field_that_is_not_explained_fails() -> None:
    @dataclass
    class Found:
        """What was found.

        Attributes
        ----------
        loss : float
            The loss.
        """

        loss: float
        top1: float

    found = list(docstrings.faults_of("Found", Found, checks=False))
    assert found == ["explains the attributes ['loss'], takes ['loss', 'top1']"]


def test_a_name_that_the_reference_lacks_fails() -> None:
    names = {"ntxent.planted.Loss", "ntxent.planted.Loss.temperature"}
    found = docstrings.faults(planted(WHOLE), names)
    assert found == ["ntxent.planted.loss is not in the reference"]


def test_an_example_that_is_wrong_fails(capsys: Any) -> None:
    assert docstrings.run_examples(planted(WHOLE.replace("\n2\n", "\n3\n")))[0] == 1


TEXT = """# A page

```python
x = 1
```

- an item

  ```python
  print(x + 1)
  ```

  ```text
  2
  ```

```console
$ rm -r /
```
"""


def ran(text: str, tmp_path: Path, monkeypatch: Any) -> None:
    """Run the blocks of a page, here."""
    monkeypatch.setattr(blocks, "batches", dict)
    blocks.run(tmp_path / "page.md", blocks.blocks_of(text))


def test_blocks_are_found_and_run(tmp_path: Path, monkeypatch: Any) -> None:
    assert blocks.blocks_of(TEXT) == [Block(4, "x = 1\n", None), Block(10, "print(x + 1)\n", "2\n")]
    ran(TEXT, tmp_path, monkeypatch)


def test_a_block_that_prints_something_else_fails(tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(AssertionError, match=r"page.md:10 printed\n3\nbut the page says\n2"):
        ran(TEXT.replace("x = 1", "x = 2"), tmp_path, monkeypatch)


def test_a_block_that_raises_fails_at_its_line(tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(NameError) as raised:
        ran(TEXT.replace("print(x", "print(y"), tmp_path, monkeypatch)
    last = raised.traceback[-1]
    assert (Path(last.path).name, last.lineno + 1) == ("page.md", 10)


@pytest.mark.parametrize(
    "fence",
    [
        *("```py", "```Python", "``` python3", "```pycon", "```ipython3", "````python"),
        *("```python title=a", "```{code-block} python", "```{code-cell}"),
    ],
)
def test_python_that_nothing_would_run_is_refused(fence: str) -> None:
    with pytest.raises(ValueError, match="line 3: a block of Python begins with ```python"):
        blocks.blocks_of(TEXT.replace("```python", fence))


def test_a_fence_of_tildes_is_refused() -> None:
    with pytest.raises(ValueError, match="line 13: a fence is of backticks"):
        blocks.blocks_of(TEXT.replace("```text\n  2\n  ```", "~~~text\n  2\n  ~~~"))


@pytest.mark.parametrize(
    "command",
    [
        "`nox -s dcos`",
        'python3 noxfile.py -s "tests(cobol-cpu)"',
        "python tests/none.py --write",
        "torchrun --nproc-per-node 2 examples/none.py",
        "python -m ntxent.none",
    ],
)
def test_a_command_that_is_not_there_is_found(command: str) -> None:
    assert len(list(commands.faults(command, {"docs"}))) == 1


def test_commands_that_are_there_pass() -> None:
    text = "`nox -s docs`, python tests/numerics.py, python -m ntxent"
    assert list(commands.faults(text, {"docs"})) == []


@pytest.mark.parametrize(
    ("page", "count"),
    [
        ('<script src="https://a.example/mathjax.js"></script>', 1),
        ('<link rel="stylesheet" href="//a.example/x.css">', 1),
        ('<img src="http://a.example/badge.svg" srcset="https://a.example/2x.png">', 2),
        ("<style>@font-face { src: url(https://a.example/font.woff2) }</style>", 1),
        ('<p style="background: url(https://a.example/x.png)">', 1),
        ('<a href="https://a.example"><img src="_static/x.png"></a><script src="x.js">', 0),
    ],
)
def test_pages_that_load_from_elsewhere_are_found(page: str, count: int, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(page)
    assert len(list(offline.faults(tmp_path / "page.html"))) == count


def test_styles_that_load_from_elsewhere_are_found(tmp_path: Path) -> None:
    (tmp_path / "x.css").write_text('@import "https://a.example/x.css"; a { b: url(c.png) }')
    assert list(offline.faults(tmp_path / "x.css")) == ["https://a.example/x.css"]
