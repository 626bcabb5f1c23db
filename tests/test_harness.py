"""The tests test: errors that are planted must be found, and no comparison is thrown away."""

from __future__ import annotations

import ast
from collections import Counter
from itertools import combinations, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from _cases import Case, oracle
from _covering import covering, each_once, every_two
from _tolerances import TOLERANCES, assert_within, gradient_error, relative_error, tolerance

TESTS = Path(__file__).parent
COMPARISONS = {"allclose", "isclose", "array_equal", "array_equiv", "equal", "is_close"}


@pytest.mark.parametrize("table", TOLERANCES)
@pytest.mark.parametrize("temperature", [0.005, 0.5])
def test_an_error_of_ten_tolerances_is_found(table: str, temperature: float) -> None:
    dtype = table.split(",", maxsplit=1)[0]
    truth = oracle(Case("random", 2, 5, 8, temperature), dtype)
    bound = tolerance(table, "loss", temperature)
    assert_within(relative_error(truth.loss * (1 + bound / 2), truth.loss), bound, "half of it")
    with pytest.raises(AssertionError, match="times the bound"):
        assert_within(relative_error(truth.loss * (1 + 10 * bound), truth.loss), bound, "ten of it")
    bound = tolerance(table, "gradient", temperature)
    rest = truth.lengths, truth.rows, temperature, dtype
    for factor in (0.5, 10):
        off = [g.copy() for g in truth.gradients]
        size = max(np.abs(g * n).max() for g, n in zip(off, truth.lengths, strict=True))
        scale = max(size, np.max(-np.expm1(-truth.rows)) / (truth.rows.size * temperature))
        off[1][0, 0] += factor * bound * scale / truth.lengths[1][0, 0]
        found = gradient_error(off, truth.gradients, *rest) <= bound
        assert found is (factor < 1)


def test_nan_is_not_within_any_bound() -> None:
    for got, expected in ((np.nan, 1.0), (1.0, np.nan), (np.inf, 1.0)):
        with pytest.raises(AssertionError):
            assert_within(relative_error(got, expected), 1e300, "not a number")


def test_an_error_planted_in_a_backend_is_found(backend: Any, monkeypatch: Any) -> None:
    """Ten tolerances in the softplus, which every implementation of it goes through."""
    case = Case("random", 2, 5, 8, 0.1)
    truth = oracle(case, "float64")
    views = [backend.from_numpy(x) for x in truth.inputs]
    exact = type(backend.ops).softplus
    bound = tolerance("float64", "loss", 0.1)
    for factor, passes in ((0.1, True), (10, False)):
        monkeypatch.setattr(
            type(backend.ops), "softplus", lambda ops, x, f=factor: exact(ops, x) * (1 + f * bound)
        )
        loss = backend.value(backend.module.nt_xent, *views, temperature=0.1)
        assert (relative_error(loss, truth.loss) <= bound) is passes


def test_every_two_values_meet_in_a_selection() -> None:
    """Each pair that the grid has, in fewer cases; a hole of the grid stays one."""
    grid = [case for case in product("abc", range(4), range(4, 9)) if case[:2] != ("a", 0)]

    def pairs(cases: list[Any]) -> set[Any]:
        return {(*places, *pair) for case in cases for places, pair in parts(case)}

    def parts(case: Any) -> Any:
        places = combinations(range(3), 2)
        return zip(places, combinations(case, 2), strict=True)

    found = every_two(grid)
    assert set(found) <= set(grid)
    assert pairs(found) == pairs(grid)
    assert len(found) < len(grid) / 2


def test_no_value_of_a_selection_is_everywhere() -> None:
    """Of values that must be there once each, those of the shorter axes are shared out."""
    found = each_once(product(range(6), "ab", range(3)))
    assert len(found) == 6
    for place, most in ((0, 1), (1, 3), (2, 2)):
        assert max(Counter(case[place] for case in found).values()) == most


def items_of(backend: str, *args: Any, **kwargs: Any) -> list[Any]:
    """The cases of a marked test of a backend: a case and a form of it each."""
    marks = {"covering": SimpleNamespace(args=args, kwargs=kwargs)}
    return [
        SimpleNamespace(
            nodeid=f"test_it[{case}-{form}]",
            callspec=SimpleNamespace(params={"case": case, "form": form, "backend": backend}),
            get_closest_marker=marks.get,
        )
        for case, form in product([Case("close", 2, n, 3, t) for n in (1, 2) for t in (1, 2)], "ab")
    ]


def test_of_a_marked_test_some_cases_run() -> None:
    """Fields of a case count each by itself; what is named meets; what isn't marked runs whole."""
    triple, alone = ("images", "temperature", "form"), {"pairs": False}
    for backend, args, kwargs, count in (
        ("numpy", (), {}, 6),  # four would do, which the greedy choice misses
        ("numpy", (triple,), {}, 8),
        ("numpy", (("form",),), alone, 2),
        ("jax", (), {}, 2),
        ("jax", (triple,), {}, 4),
        ("tensorflow", (triple,), alone, 4),
    ):
        items = items_of(backend, *args, **kwargs)
        kept, left_out = covering(items)
        assert len(kept) == count
        assert sorted(map(id, kept + left_out)) == sorted(map(id, items))
    with pytest.raises(KeyError):
        covering(items_of("numpy", ("no such name",)))
    unmarked = items_of("numpy")
    for item in unmarked:
        item.get_closest_marker = lambda _: None
    assert covering(unmarked)[1] == []


def functions() -> list[tuple[str, ast.FunctionDef]]:
    return [
        (f"{path.name}:{node.name}", node)
        for path in sorted(TESTS.glob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]


def called(node: ast.AST) -> str:
    function = getattr(node, "func", None)
    return getattr(function, "attr", getattr(function, "id", ""))


def test_no_comparison_is_thrown_away() -> None:
    thrown = [
        f"{path.name}:{node.lineno}"
        for path in sorted(TESTS.glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Expr)
        and (called(node.value) in COMPARISONS or isinstance(node.value, ast.Compare))
    ]
    assert not thrown


def test_every_test_can_fail() -> None:
    def asserts(node: ast.AST) -> bool:
        return (
            isinstance(node, ast.Assert)
            or called(node) in {"raises", "check_grads"}
            or (called(node).startswith("assert_"))
        )

    silent = [name for name, body in functions() if not any(map(asserts, ast.walk(body)))]
    assert len(functions()) > 40
    assert not silent


def run_pytest(tmp_path: Path, *options: str) -> tuple[int, str]:
    import subprocess
    import sys

    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.returncode, found.stdout + found.stderr


# Both start runs of NumPy's tests, in whatever session: one session does.


@pytest.mark.only("numpy")
def test_a_required_device_that_is_missing_fails_the_run(tmp_path: Path) -> None:
    """It does not skip; numpy has no gpu anywhere."""
    code, output = run_pytest(tmp_path, "--backend", "numpy", "--device", "gpu", "--require")
    assert code != 0
    assert "--require: numpy sees no gpu" in output


@pytest.mark.only("numpy")
def test_a_required_backend_whose_tests_all_vanish_fails_the_run(tmp_path: Path) -> None:
    """Other tests pass, and the run still fails: it has shown nothing of the backend."""
    others = [*"abcdefghijklmnopqstuvwxyz", "rep"]  # all but the reference, which has no backend
    ignored = [f"--ignore-glob=*/test_{beginning}*" for beginning in others]
    command = ["--backend", "numpy", *ignored]
    code, output = run_pytest(tmp_path, *command)
    assert code == 0, output
    code, output = run_pytest(tmp_path, *command, "--require")
    assert " passed" in output
    assert code == 5
