"""The recipes run, and what they train is better than what they started from."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.only("torch"), pytest.mark.extras]

ROOT = Path(__file__).parents[1]


def output(name: str) -> str:
    """What the recipe prints with --quick."""
    found = subprocess.run(
        [sys.executable, f"examples/{name}.py", "--quick"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def numbers(text: str, line: str) -> list[float]:
    """Those of the line that begins so."""
    (rest,) = (found.removeprefix(line) for found in text.splitlines() if found.startswith(line))
    return [float(x) for x in re.findall(r"\d+\.\d+", rest)]


@pytest.mark.parametrize(("name", "gain"), [("moco_digits", 0.3), ("sup_con_digits", 2.0)])
def test_two_epochs_help_a_linear_probe(name: str, gain: float) -> None:
    """In points; it takes fifty epochs and more to beat raw pixels by far."""
    text = output(name)
    before, after = (numbers(text, f"{kind} encoder")[0] for kind in ("untrained", "trained"))
    assert after - before > gain


def test_halves_of_digits_find_each_other() -> None:
    text = output("two_towers_digits")
    chance, before, after = (
        min(numbers(text, line)) for line in ("chance", "before training", "after training")
    )
    assert after > 5 * chance
    assert after > 3 * before
    assert numbers(text, "temperature")[0] >= 0.01
