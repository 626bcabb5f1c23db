"""NumPy's `value_and_grad` beyond the losses themselves."""

from __future__ import annotations

import re
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
    from ntxent.numpy import nt_xent, value_and_grad
    from ntxent.numpy._pairs import tiled

    count, fill = [], tiled.Pairs.fill
    monkeypatch.setattr(tiled, "TILE", tile)
    monkeypatch.setattr(tiled.Pairs, "fill", lambda *args: count.append(1) or fill(*args))
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


SERVED = r"differentiates losses, and \+ - \* / of losses and numbers; got "
NOT_SERVED = {
    "numpy.mean": lambda a: np.mean(loss_rows(a)),
    ".mean": lambda a: loss_rows(a).mean(),
    "**": lambda a: loss_rows(a) ** 2,
    "@": lambda a: loss_rows(a @ np.eye(3)),
    "numpy.matmul": lambda a: loss_rows(np.eye(5) @ a),
    "numpy.exp": lambda a: loss_rows(np.exp(a)),
    "numpy.sum": lambda a: np.sum(np.ones(10) / loss_rows(a)),
    "numpy.add": lambda a: np.add.reduce(loss_rows(a)),
    "indexing": lambda a: loss_rows(a[::-1]),
    "unpacking": lambda a: sum(loss_rows(a)),
    "in": lambda a: 0 in loss_rows(a),
    "<": lambda a: max(loss_rows(a), 0.0),
    "float()": lambda a: float(loss_rows(a)),
    "int()": lambda a: int(loss_rows(a)),
    "round()": lambda a: round(loss_rows(a), 2),
    "divmod()": lambda a: divmod(loss_rows(a), 2),
    "unary +": lambda a: +loss_rows(a),
    "~": lambda a: ~loss_rows(a),
    "&": lambda a: loss_rows(a) & 1,
    "a conversion": lambda a: np.asarray(loss_rows(a)),
}


def loss_rows(a: Any) -> Any:
    from ntxent.numpy import nt_xent

    return nt_xent(a, Z[1], reduction="none")


@pytest.mark.parametrize("what", NOT_SERVED)
def test_arithmetic_that_is_not_served_says_what_is(what: str) -> None:
    from ntxent.numpy import value_and_grad

    words = SERVED + re.escape(what) + r".* of an array or a loss inside of it\. Encode and index"
    with pytest.raises((TypeError, AttributeError), match=words):
        value_and_grad(NOT_SERVED[what])(Z[0])


def test_a_loss_inside_of_it_can_be_printed() -> None:
    from ntxent.numpy import nt_xent, value_and_grad

    said = []

    def fn(a: Any) -> Any:
        loss = nt_xent(a, Z[1])
        said.extend((f"{loss:.3f}", str(loss)))
        return loss

    loss, _ = value_and_grad(fn)(Z[0])
    assert said == [f"{loss:.3f}", f"{loss!r} under value_and_grad"]


def test_arithmetic_by_numpy_s_names_and_numbers() -> None:
    from ntxent.numpy import nt_xent, value_and_grad

    def fn(a: Any) -> Any:
        loss = nt_xent(a, Z[1])
        return np.multiply(np.float64(3), loss) + np.divide(np.subtract(loss, 1), np.array(2.0))

    loss, (grad,) = value_and_grad(fn)(Z[0])
    expected, slope = value_and_grad(lambda a: nt_xent(a, Z[1]))(Z[0])
    assert loss == pytest.approx(3.5 * expected - 0.5, rel=1e-14)
    np.testing.assert_allclose(grad, 3.5 * slope[0], rtol=1e-13)


@pytest.mark.parametrize(
    "held",
    [[Z[0]], (1, Z[0]), {"z": Z[0]}, {"views": [Z[0], Z[1]]}],
    ids=["[]", "()", "{}", "{[]}"],
)
def test_arrays_in_a_container_are_refused(held: Any) -> None:
    """They would have no gradient."""
    from ntxent.numpy import nt_xent, value_and_grad

    for args, kwargs in (((Z[0], held), {}), ((Z[0],), {"held": held})):
        with pytest.raises(TypeError, match=r"got a (list|tuple|dict) with float.*one by one"):
            value_and_grad(lambda z, held: nt_xent(z, Z[1]))(*args, **kwargs)
    loss, _ = value_and_grad(lambda z, held: nt_xent(z, Z[1]))(Z[0], [1, "a", np.arange(3)])
    assert loss == nt_xent(*Z)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_any_order_of_bytes_is_taken(dtype: str) -> None:
    """Of rows, temperature, labels and ids; gradients are in the machine's."""
    import ntxent
    from ntxent.numpy import info_nce, nt_xent, sup_con, value_and_grad

    def swapped(x: Any) -> Any:
        return x.astype(x.dtype.newbyteorder())

    z1, z2 = Z.astype(dtype)
    tau, ids = np.array(0.3, dtype), np.array([0, 1, 1, 2, 300], "int16")
    for loss, arrays, integers in (
        (nt_xent, (z1, z2), {"ids": ids}),
        (sup_con, (z1,), {"labels": ids}),
        (info_nce, (z1, z2, z2 * z1), {"ids": np.concatenate([ids, ids])}),
    ):
        expected = value_and_grad(loss)(*arrays, temperature=tau, **integers)
        others = {key: swapped(x) for key, x in integers.items()}
        found = value_and_grad(loss)(*map(swapped, arrays), temperature=swapped(tau), **others)
        alone = loss(*map(swapped, arrays), temperature=swapped(tau), **others)
        assert alone == found[0] == expected[0]
        for got, want in zip(found[1], expected[1], strict=True):
            assert got.dtype == want.dtype
            assert got.dtype.isnative
            assert np.array_equal(got, want)
    assert ntxent.diagnostics(swapped(z1), swapped(z2), ids=swapped(ids)) == ntxent.diagnostics(
        z1, z2, ids=ids
    )


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("kind", [np.ma.masked_array, np.matrix])
def test_odd_arrays_are_refused_here_too(kind: Any) -> None:
    """A mask would be lost, and the number wrong."""
    from ntxent.numpy import nt_xent, value_and_grad

    with pytest.raises(TypeError, match=r"view 2 must be a plain numpy\.ndarray; got a numpy\."):
        value_and_grad(nt_xent)(Z[0], kind(Z[1]))


@pytest.mark.parametrize("dtype", ["longdouble", "complex128", "M8[s]", "object"])
def test_numbers_of_other_kinds_are_refused(dtype: str) -> None:
    from ntxent.numpy import nt_xent, value_and_grad

    for call in (nt_xent, value_and_grad(nt_xent)):
        with pytest.raises(TypeError, match="real floating dtype"):
            call(*Z.astype(dtype))


def test_shapes_that_would_be_broadcast_are_refused() -> None:
    from ntxent.numpy import nt_xent, value_and_grad

    def fn(a: Any) -> Any:
        rows = nt_xent(a, Z[1], reduction="none") * np.ones((10, 10))
        total = rows.value.sum()  # which only a private name of it gives
        return rows.tape.record([rows], total, lambda g: [np.full(rows.shape, g)])

    with pytest.raises(TypeError, match="takes equal shapes"):
        value_and_grad(fn)(Z[0])
