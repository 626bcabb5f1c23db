"""The recipes run, and what they train is better than what they started from."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import marks

pytestmark = [pytest.mark.only("torch"), pytest.mark.extras]

ROOT = Path(__file__).parents[1]


TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with these arguments, to its end."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def output(name: str, *changes: str, launcher: Sequence[str] = ()) -> str:
    """What the recipe prints with --quick, its constants changed by these statements."""
    program = [f"examples/{name}.py"]
    if changes:
        lines = ["import sys", "sys.path.insert(0, 'examples')", f"import {name} as recipe"]
        program = ["-c", "\n".join([*lines, *changes, "recipe.main()"])]
        if launcher:  # of programs that aren't files
            program = ["--no-python", sys.executable, *program]
    found = run(*launcher, *program, "--quick")
    assert found.returncode == 0, found.stderr
    return found.stdout


def numbers(text: str, line: str) -> list[float]:
    """Those of the line that begins so."""
    (rest,) = (found.removeprefix(line) for found in text.splitlines() if found.startswith(line))
    return [float(x) for x in re.findall(r"\d+\.\d+", rest)]


def gain(text: str) -> float:
    """By how many points training betters the linear probe."""
    before, after = (numbers(text, f"{kind} encoder")[0] for kind in ("untrained", "trained"))
    return after - before


def test_moco_learns_from_its_queue() -> None:
    """A batch of 128 alone would cost less than log(128), keys that never follow more than 5.6."""
    text = output("moco_digits")
    assert gain(text) > 3
    (loss,) = numbers(text, "loss of the last ten steps:")
    assert math.log(128) < loss < 5.6


def test_what_is_watched_betters(tmp_path: Path) -> None:
    figure = tmp_path / "figure.png"
    found = run("examples/watch_digits.py", "--quick", "--figure", str(figure))
    assert found.returncode == 0, found.stderr
    header, *lines = (line.split() for line in found.stdout.splitlines()[:-1])
    written = marks.read("docs/howto/watch-training.md", "watch").splitlines()[1:3]
    assert [line.split() for line in written] == [header, lines[0]]  # its seeds are fixed
    first, last = (dict(zip(header, map(float, line), strict=True)) for line in lines)
    assert (first["steps"], last["steps"]) == (0, 10)
    assert last["uniformity"] < first["uniformity"] - 0.5
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_sup_con_learns_from_labels() -> None:
    """Without them a row has one positive, which is found for less than 3.85."""
    text = output("sup_con_digits")
    assert gain(text) > 5
    first, last = numbers(text, "loss:")
    assert 3.85 < last < first - 0.5


def test_halves_of_digits_find_each_other() -> None:
    text = output("two_towers_digits")
    chance, before, after = (
        numbers(text, line) for line in ("chance", "before training", "after training")
    )
    assert min(after) > 10 * max(chance)
    assert min(after) > 5 * max(before)
    learned, start = numbers(text, "temperature")
    assert learned < start


def test_the_learned_temperature_is_bounded() -> None:
    """By a bound that it would cross at once, as it needs more than a quick run to reach CLIP's."""
    text = output("two_towers_digits", "recipe.LEAST_TEMPERATURE = 0.1")
    assert numbers(text, "temperature")[0] >= 0.1


def several(framework: str, *changes: str) -> str:
    """What the recipe of several processes prints, or that of several devices."""
    if framework == "torch":
        return output("simclr_ddp", *changes, launcher=TORCHRUN)
    return output("simclr_sharded", *changes)


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_two_processes_train(framework: str) -> None:
    assert gain(several(framework)) > 1


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_two_processes_train_as_one(framework: str, monkeypatch: Any) -> None:
    """Every step's loss, in float64: Adam divides by gradients whose sign may be rounding's.

    In float32 the losses are one and the same for nine steps and 2e-4 apart six steps later.
    """
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    changes = [
        "import numpy",
        "numpy.float32 = numpy.float64",
        "digits, training = recipe._digits, recipe._digits_training",
        "digits.score = lambda *_: digits.Score([0.0], [0.0])",
        "training.summary = lambda losses, *_: f'steps: {losses}'",
    ]
    no_figure = "recipe._digits_figure.save = lambda *_: None"
    by_it = f"sys.argv += ['--backend', '{framework}']"
    two = numbers(several(framework, *changes), "steps:")
    one = numbers(output("simclr_digits", *changes, no_figure, by_it), "steps:")
    assert len(one) == 20
    ratios = [mine / whole for mine, whole in zip(two, one, strict=True)]
    assert max(abs(ratio - 1) for ratio in ratios) < 1e-13


def test_several_processes_need_torchrun() -> None:
    found = run("examples/simclr_ddp.py", "--quick")
    assert found.returncode == 1
    assert "torchrun --nproc-per-node 2 examples/simclr_ddp.py" in found.stderr
    assert "Traceback" not in found.stderr
