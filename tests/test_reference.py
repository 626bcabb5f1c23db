"""The loops themselves, on what can be said by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ntxent import reference


def test_identical_rows_give_log_2n_minus_1() -> None:
    for images in (1, 2, 7):
        same = np.ones((images, 3))
        assert math.isclose(reference.nt_xent(same, same), math.log(2 * images - 1), abs_tol=1e-15)


def test_orthogonal_images_by_hand() -> None:
    """s = 1 for the pair and 0 for both negatives: log(1 + 2 exp(-1/tau))."""
    z = np.eye(2)
    assert math.isclose(reference.nt_xent(z, z, temperature=0.5), math.log1p(2 * math.exp(-2)))


def test_antipodal_pairs_by_hand() -> None:
    z = np.eye(4)
    expected = 200 + math.log(6)
    assert math.isclose(reference.nt_xent(z, -z, temperature=0.005), expected, rel_tol=1e-14)


def test_the_positive_pairs_are_a_dictionary() -> None:
    assert reference.positive_pairs(2, 2) == {0: [2], 1: [3], 2: [0], 3: [1]}
    assert reference.positive_pairs(3, 1) == {0: [1, 2], 1: [0, 2], 2: [0, 1]}


@pytest.mark.parametrize("denominator", ["all", "one_positive", "negatives"])
def test_the_gradients_are_those_of_finite_differences(denominator: str) -> None:
    views = list(np.random.default_rng(0).standard_normal((3, 4, 3)))
    kwargs = {"temperature": 0.3, "denominator": denominator, "ids": [0, 0, 1, 2]}
    gradients, by_temperature = reference.gradients(*views, **kwargs)
    step = 1e-6
    for view in range(3):
        for place in np.ndindex(4, 3):
            ends = []
            for sign in (1, -1):
                moved = [v.copy() for v in views]
                moved[view][place] += sign * step
                ends.append(reference.nt_xent(*moved, **kwargs))
            slope = (ends[0] - ends[1]) / (2 * step)
            assert math.isclose(gradients[view][place], slope, rel_tol=1e-6, abs_tol=1e-8)
    ends = [reference.nt_xent(*views, **(kwargs | {"temperature": 0.3 + e})) for e in (step, -step)]
    assert math.isclose(by_temperature, (ends[0] - ends[1]) / (2 * step), rel_tol=1e-6)
