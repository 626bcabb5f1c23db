"""NumPy's `value_and_grad` beyond the losses themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.only("numpy")

Z = np.random.default_rng(0).standard_normal((2, 5, 3))


def test_gradients_come_in_the_order_of_the_arrays() -> None:
    from ntxent.numpy import nt_xent, value_and_grad

    tau = np.array(0.2)
    loss, grads = value_and_grad(nt_xent)(Z[0], Z[1], temperature=tau, ids=np.arange(5))
    assert loss == pytest.approx(nt_xent(Z[0], Z[1], temperature=0.2), rel=1e-14)
    assert [g.shape for g in grads] == [(5, 3), (5, 3), ()]
    step = 1e-6
    up, down = (nt_xent(Z[0], Z[1], temperature=0.2 + e) for e in (step, -step))
    assert float(grads[2]) == pytest.approx((up - down) / (2 * step), rel=1e-7)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_gradients_have_the_dtype_of_their_arrays(dtype: str) -> None:
    from ntxent.numpy import nt_xent, value_and_grad

    loss, grads = value_and_grad(nt_xent)(*Z.astype(dtype), temperature=np.array(0.2, "float64"))
    assert loss.dtype == (np.float64 if dtype == "float64" else np.float32)
    assert [g.dtype for g in grads] == [np.dtype(dtype)] * 2 + [np.dtype("float64")]


@pytest.mark.parametrize(("tile", "filled"), [(512, 1), (4, 2 * 6)])
def test_a_tile_that_is_all_is_filled_once(tile: int, filled: int, monkeypatch: Any) -> None:
    """And several twice each, of which 3 x 3 have six on and above the diagonal."""
    from ntxent.numpy import _tiled, nt_xent, value_and_grad

    count, fill = [], _tiled.Pairs.fill
    monkeypatch.setattr(_tiled, "TILE", tile)
    monkeypatch.setattr(_tiled.Pairs, "fill", lambda *args: count.append(1) or fill(*args))
    _, grads = value_and_grad(nt_xent)(*Z)
    _, expected = value_and_grad(nt_xent)(*Z, implementation="dense")
    np.testing.assert_allclose(grads, expected, rtol=1e-13)
    assert len(count) == filled


def test_a_numpy_number_is_a_number_for_the_temperature() -> None:
    from ntxent.numpy import nt_xent

    for kind in (np.float32, np.float64):
        assert nt_xent(*Z, temperature=kind(0.5)) == nt_xent(*Z, temperature=0.5)


def test_sums_and_multiples_of_losses() -> None:
    from ntxent.numpy import nt_xent, value_and_grad

    def fn(a: Any, b: Any) -> Any:
        return 2 * nt_xent(a, b) - nt_xent(b, a) / 4 + 1 - (-nt_xent(a, b, temperature=0.5))

    loss, grads = value_and_grad(fn)(*Z)
    first, one = value_and_grad(nt_xent)(*Z)
    second, two = value_and_grad(lambda a, b: nt_xent(a, b, temperature=0.5))(*Z)
    assert loss == pytest.approx(1.75 * first + second + 1)
    for got, a, b in zip(grads, one, two, strict=True):
        np.testing.assert_allclose(got, 1.75 * a + b, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (lambda _: None, r"needs a scalar loss; got NoneType"),
        (lambda a: (a, a), r"needs a scalar loss; got tuple"),
        (lambda _: Z[0], r"got ndarray of shape \(5, 3\)"),
        (lambda a: a, r"got ndarray of shape \(5, 3\). Return a loss"),
        (lambda _: True, r"got bool"),
    ],
    ids=["None", "a tuple", "an array", "its argument", "a truth value"],
)
def test_what_is_no_scalar_is_refused(fn: Any, words: str) -> None:
    from ntxent.numpy import value_and_grad

    with pytest.raises(ValueError, match=words):
        value_and_grad(fn)(Z[0])


def test_nothing_to_differentiate_by_is_refused() -> None:
    from ntxent.numpy import value_and_grad

    with pytest.raises(ValueError, match="needs a float array"):
        value_and_grad(lambda n: n)(3)


def test_nesting_and_truth_are_refused() -> None:
    from ntxent.numpy import nt_xent, value_and_grad

    def nested(a: Any) -> Any:
        return value_and_grad(lambda b: nt_xent(a, b))(Z[1])[0]

    with pytest.raises(TypeError, match="can't be nested"):
        value_and_grad(nested)(Z[0])
    with pytest.raises(TypeError, match="no truth value"):
        value_and_grad(lambda a: 1.0 if nt_xent(a, Z[1]) else 0.0)(Z[0])


def test_shapes_that_would_be_broadcast_are_refused() -> None:
    from ntxent.numpy import nt_xent, value_and_grad

    def fn(a: Any) -> Any:
        from ntxent.numpy._ops import OPS

        rows = nt_xent(a, Z[1], reduction="none") * np.ones((10, 10))
        return OPS.reduce(rows, "sum", rows.dtype)

    with pytest.raises(TypeError, match="takes equal shapes"):
        value_and_grad(fn)(Z[0])
