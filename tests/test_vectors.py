"""The frozen vectors at 30 digits: the oracle, and every implementation, in float64 and float32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _tolerances import assert_within, gradient_error, relative_error, tolerance
from ntxent import reference

CASES = json.loads((Path(__file__).parent / "vectors" / "nt_xent.json").read_text())["cases"]
# Of each name: denominator, whether rows are normalized, and whether there are ids.
FORMULAS = {
    case["name"]: f"{case['denominator']}, {case['normalize']}, {case['ids'] is not None}"
    for case in CASES
}


def numbers(nested: Any) -> Any:
    """Decimal strings as a float64 array."""
    return np.array(nested, dtype=object).astype(np.float64)


def parts(case: dict[str, Any]) -> tuple[list[Any], dict[str, Any], list[Any], Any]:
    """The views, the keyword arguments without ids, the gradients and the row losses."""
    keywords = {
        "temperature": float(case["temperature"]),
        "denominator": case["denominator"],
        "normalize": case["normalize"],
    }
    views = [numbers(view) for view in case["views"]]
    gradients = [numbers(gradient) for gradient in case["view_gradients"]]
    return views, keywords, gradients, numbers(case["row_losses"])


def scale_of(views: list[Any], normalize: bool, temperature: float) -> float:
    """The size of a logit, which a loss that may cross zero is the difference of."""
    return (
        1 / temperature
        if normalize
        else max((view**2).sum(1).max() for view in views) / temperature
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_reference_agrees_with_the_vectors(case: dict[str, Any]) -> None:
    views, keywords, gradients, rows = parts(case)
    got = reference.row_losses(*views, ids=case["ids"], **keywords)
    bound = 1e-13 * max(1, 0.1 / keywords["temperature"])
    may_cross = keywords["denominator"] == "negatives" or not keywords["normalize"]
    scale = scale_of(views, keywords["normalize"], keywords["temperature"]) if may_cross else 0.0
    assert_within(relative_error(np.array(got), rows, scale), bound, "rows")
    found, by_temperature = reference.gradients(*views, ids=case["ids"], **keywords)
    tau = keywords["temperature"]
    lengths = [np.hypot.reduce(view, axis=1, keepdims=True) for view in views]
    assert_within(gradient_error(found, gradients, lengths, rows, tau), bound, "gradient")
    weight = -np.expm1(-np.abs(rows)).mean()
    expected = float(case["temperature_gradient"])
    assert_within(relative_error(by_temperature, expected, weight / tau**2), bound, "temperature")


@pytest.mark.covering(("name",), ("formula", "implementation", "dtype"), pairs=False)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("name", "formula"), [(case["name"], FORMULAS[case["name"]]) for case in CASES]
)
def test_every_implementation_agrees_with_the_vectors(
    backend: Any, implementation: str, dtype: str, name: str, formula: str, note_worst: Any
) -> None:
    case = next(case for case in CASES if case["name"] == name)
    views, keywords, gradients, rows = parts(case)
    tau = keywords.pop("temperature")
    ids = None if case["ids"] is None else backend.from_numpy(np.array(case["ids"]))
    keywords |= {"ids": ids, "implementation": implementation}
    arrays = [backend.from_numpy(x, dtype) for x in (*views, np.array(tau))]

    def fn(*arrays: Any) -> Any:
        return backend.module.nt_xent(*arrays[:-1], temperature=arrays[-1], **keywords)

    key = "vectors", *(str(case[part]) for part in ("denominator", "normalize", "ids"))
    loss, grads = backend.value_and_grad(fn, arrays, key=(*key, implementation))
    may_cross = keywords["denominator"] == "negatives" or not keywords["normalize"]
    scale = scale_of(views, keywords["normalize"], tau) if may_cross else 0.0
    lengths = [np.hypot.reduce(view, axis=1, keepdims=True) for view in views]
    weight = max(-np.expm1(-np.abs(rows)).mean(), np.finfo(dtype).tiny / np.finfo(dtype).eps)
    expected = float(case["temperature_gradient"])
    fractions = {
        "loss": relative_error(loss, float(case["loss"]), scale) / tolerance(dtype, "loss", tau),
        "gradient": gradient_error(grads[:-1], gradients, lengths, rows, tau, dtype)
        / tolerance(dtype, "gradient", tau),
        "temperature": relative_error(grads[-1], expected, max(weight, scale * tau) / tau**2)
        / tolerance(dtype, "gradient", tau),
    }
    for what, fraction in fractions.items():
        assert_within(fraction, 1.0, f"{what} of {case['name']} in {dtype}")
        note_worst(f"vectors, {what}", backend.name, fraction)
