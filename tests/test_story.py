"""docs/from-formula-to-fast-code.md: its forms are one function, its figures and times are true."""

from __future__ import annotations

import re

import numpy as np
import pytest

import draw
import steps
from _tolerances import TOLERANCES, assert_within, relative_error, tolerance
from benchmarks import marks
from ntxent import reference

pytestmark = pytest.mark.only("numpy")


def test_its_forms_agree_with_the_loops() -> None:
    """On more rows than fit a tile, of which the last is ragged and some hold no positive."""
    page = steps.steps()
    views = np.random.default_rng(0).standard_normal((2, 23, 5))
    truth = reference.nt_xent(*views, temperature=0.2)
    assert_within(relative_error(page["loops"](*views, 0.2), truth), 1e-12, "loops")
    assert_within(relative_error(page["matrix"](*views, 0.2), truth), 1e-12, "matrix")
    slopes, _ = reference.gradients(*views, temperature=0.2)
    scale = np.abs(slopes).max()
    for name, found in {
        "matrix": page["matrix_and_gradient"](*views, 0.2),
        "tiles": page["tiled"](*views, 0.2, size=7),
    }.items():
        loss, gradients = found
        assert_within(relative_error(loss, truth), TOLERANCES["float64"]["loss"], name)
        error = relative_error(np.stack(gradients), np.stack(slopes), scale)
        assert_within(error, TOLERANCES["float64"]["gradient"], f"{name}, gradient")


def test_all_forms_that_are_timed_give_one_loss() -> None:
    losses = {name: form() for name, form in steps.forms(16).items()}
    loops = losses.pop("loops")
    assert set(losses) == {"matrix", "tiles", "library"}
    for name, (loss, _) in losses.items():
        assert_within(relative_error(loss, loops), TOLERANCES["float32"]["loss"], name)


def test_the_table_has_the_sizes_and_the_ratios_of_its_times() -> None:
    """As far as the times are written out."""
    text = marks.read(steps.PAGE, "steps")
    rows = [line.split("|")[1:-1] for line in text.splitlines() if re.match(r"\| \d", line)]
    assert [int(row[0]) for row in rows] == list(steps.SIZES)
    for row in rows:
        matrix, tiles = (milliseconds(row[column]) for column in (2, 3))
        assert float(row[5].strip().rstrip("×")) == pytest.approx(matrix / tiles, rel=0.1)


def milliseconds(cell: str) -> float:
    number, unit = cell.split(",", maxsplit=1)[0].split()
    return float(number) * {"ms": 1, "s": 1000}[unit]


@pytest.mark.parametrize("name", ["similarities", "tiles"])
def test_the_drawings_are_what_the_script_draws(name: str) -> None:
    assert (draw.FIGURES / f"{name}.svg").read_text() == getattr(draw, name)()


@pytest.mark.parametrize("temperature", [0.04, 0.03])
def test_the_errors_are_as_the_figure_says(temperature: float) -> None:
    """No digit of logsumexp - positive is right where softplus has all that were promised."""
    errors = draw.errors(temperature)
    loss, gradient = errors["logsumexp − positive (step 3)"]
    assert loss > 0.9
    assert gradient > 0.01
    for name in ("softplus (step 4)", "softplus (ntxent.numpy)"):
        for error, quantity in zip(errors[name], ("loss", "gradient"), strict=True):
            assert_within(error, tolerance("float32", quantity, temperature), f"{name}: {quantity}")
