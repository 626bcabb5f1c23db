"""No truth is asked of a tensor: not by `if`, `and`, `or`, `not`, `in`, nor of its comparisons.

Of what a symbolic tensor is it has no answer, or, as under TensorFlow 1, a wrong one without a
word; on a GPU the answer is waited for. Only what is annotated as an array can be found so: what a
call returns, or a part of a list, is no name that says what it is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import ntxent

SOURCE = Path(ntxent.__file__).parent
ARRAYS = {"Tensor", "Array", "Ids", "Tensor | None", "Array | None", "Tensor | int", "Array | int"}
LOOKS = {
    "__main__",
    "plot",
    "reference",
    "_plain_loops",
    "_diagnostics",
    "_any_backend",
}  # at NumPy's alone
FILES = [path for path in sorted(SOURCE.rglob("*.py")) if path.stem not in LOOKS]


def asked(tree: ast.AST) -> Iterator[ast.expr]:
    """The expressions of which the truth is asked."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If | ast.While | ast.IfExp | ast.Assert):
            yield node.test
        elif isinstance(node, ast.BoolOp):
            yield from node.values
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield node.operand
        elif isinstance(node, ast.comprehension):
            yield from node.ifs
        elif isinstance(node, ast.Compare):
            member = isinstance(node.ops[0], ast.In | ast.NotIn)  # codespell:ignore
            yield from [node] * member


def is_of(expression: ast.expr, arrays: set[str]) -> bool:
    """Whether it is such an array, or a comparison with one that isn't `is`."""
    if isinstance(expression, ast.Compare):
        by_value = not all(isinstance(op, ast.Is | ast.IsNot) for op in expression.ops)
        return by_value and any(
            is_of(x, arrays) for x in (expression.left, *expression.comparators)
        )
    return isinstance(expression, ast.Name) and expression.id in arrays


def found(source: str) -> list[int]:
    """The lines where the truth of an array is asked, function by function."""
    lines = []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        arguments = function.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        named = {x.arg: x.annotation for x in every}
        named |= {
            x.target.id: x.annotation
            for x in ast.walk(function)
            if isinstance(x, ast.AnnAssign) and isinstance(x.target, ast.Name)
        }
        arrays = {key for key, said in named.items() if said and ast.unparse(said) in ARRAYS}
        lines += [x.lineno for x in asked(function) if is_of(x, arrays)]
    return lines


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_truth_is_asked_of_an_array(path: Path) -> None:
    assert not found(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "line",
    [
        "if x: pass",
        "y = x or 1",
        "y = x and z",
        "y = not x",
        "y = 1 if x == 2 else 0",
        "y = x in (1, 2)",
        "y = 1 not in x",
        "y = [a for a in z if x]",
        "while x < 3: pass",
        "assert x",
    ],
)
def test_what_is_planted_is_found(line: str) -> None:
    for kind in ("Tensor", "Array | None"):
        assert found(f"def f(x: {kind}, z: int):\n    {line}") == [2]
    assert not found(f"def f(x: int, z: int):\n    {line}")
    assert not found(
        "def f(x: Tensor | None):\n    return 1 if x is None or x.shape[0] == 2 else 0"
    )
