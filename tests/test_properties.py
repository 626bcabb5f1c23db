"""What must not change the loss, for random batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from _tolerances import assert_within, relative_error

BOUND = 1e-12  # float64; the order of the sums differs, nothing else


def batch(seed: int, views: int, images: int, dim: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    return list(rng.standard_normal((views, images, dim)))


def loss_of(backend: Any, views: list[Any], **kwargs: Any) -> Any:
    return backend.value(backend.module.nt_xent, *map(backend.from_numpy, views), **kwargs)


shapes = st.tuples(st.integers(0, 999), st.integers(2, 4), st.integers(1, 12), st.integers(1, 9))
temperatures = st.sampled_from([0.02, 0.1, 0.5, 2.0])
# Where each new shape is compiled for seconds, the examples share these: each number of views with
# few images and with several, with one column and with more.
FEW = ((2, 1, 9), (3, 12, 1), (4, 5, 3), (2, 12, 3), (3, 5, 9), (4, 1, 1), (2, 2, 1))


def of_few(backend: Any, shape: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """The seed with the shape that was drawn, or with one of few."""
    seed, *_ = shape
    return (seed, *FEW[seed % len(FEW)]) if backend.name == "jax" else shape


@given(shapes, temperatures)
def test_the_order_of_images_and_of_views_does_not_matter(
    backend: Any, shape: Any, temperature: float
) -> None:
    shape = of_few(backend, shape)
    views = batch(*shape)
    order = np.random.default_rng(shape[0]).permutation(shape[2])
    expected = loss_of(backend, views, temperature=temperature)
    for changed in ([view[order] for view in views], views[::-1], views[1:] + views[:1]):
        got = loss_of(backend, changed, temperature=temperature)
        assert_within(relative_error(got, expected), BOUND, "loss")


@given(shapes, temperatures)
def test_rotations_and_lengths_do_not_matter(backend: Any, shape: Any, temperature: float) -> None:
    shape = of_few(backend, shape)
    views = batch(*shape)
    rng = np.random.default_rng(shape[0])
    rotation, _ = np.linalg.qr(rng.standard_normal((shape[3], shape[3])))
    lengths = np.exp(rng.uniform(-5, 5, (shape[2], 1)))
    expected = loss_of(backend, views, temperature=temperature)
    for changed in ([view @ rotation for view in views], [view * lengths for view in views]):
        got = loss_of(backend, changed, temperature=temperature)
        assert_within(relative_error(got, expected), 1e-10, "loss")


@given(shapes, temperatures)
def test_a_loss_with_positives_in_its_denominator_is_not_negative(
    backend: Any, shape: Any, temperature: float
) -> None:
    views = batch(*of_few(backend, shape))
    for denominator in ("all", "one_positive"):
        rows = loss_of(
            backend,
            views,
            temperature=temperature,
            denominator=denominator,
            reduction="none",
        )
        assert (rows >= 0).all()


@given(st.integers(0, 999), st.integers(1, 12), temperatures)
def test_two_views_make_the_first_two_denominators_one(
    backend: Any, seed: int, images: int, temperature: float
) -> None:
    _, _, images, dim = of_few(backend, (seed, 2, images, 5))
    views = batch(seed, 2, images, dim)
    both = [
        loss_of(backend, views, temperature=temperature, denominator=d)
        for d in ("all", "one_positive")
    ]
    assert both[0] == both[1]


@given(shapes)
def test_reductions_agree(backend: Any, shape: Any) -> None:
    shape = of_few(backend, shape)
    views = batch(*shape)
    rows = loss_of(backend, views, reduction="none")
    assert rows.shape == (shape[1] * shape[2],)
    assert_within(
        relative_error(loss_of(backend, views, reduction="sum"), rows.sum()), BOUND, "sum"
    )
    assert_within(relative_error(loss_of(backend, views), rows.mean()), BOUND, "mean")


def test_rows_come_view_by_view(backend: Any, implementation: str) -> None:
    """The first view's rows, then the second's: a hard row of one view shows there."""
    z1, z2 = np.eye(12), np.eye(12)
    z1[3] = -z1[3]
    rows = loss_of(backend, [z1, z2], reduction="none", implementation=implementation)
    assert rows.reshape(2, 12).argmax(1).tolist() == [3, 3]
    z3 = z2.copy()
    z3[5] = np.ones(12)
    rows = loss_of(backend, [z2, z3], reduction="none", implementation=implementation).reshape(
        2, 12
    )
    assert rows[1, 5] > rows[0, 5]


@pytest.mark.parametrize("denominator", ["all", "one_positive", "negatives"])
def test_ids_take_false_negatives_out(backend: Any, implementation: str, denominator: str) -> None:
    """Equal ids are never negatives; only equality counts, whatever the values or their order."""
    from ntxent import reference

    views = batch(3, 3, 20, 6)
    ids = np.random.default_rng(0).integers(0, 8, 20)
    expected = reference.nt_xent(*views, ids=ids, denominator=denominator)
    for renamed in (ids, -5 - ids, ids * 1000 + 2**24, 2**24 + ids):
        for dtype in ("int64", "int32"):
            got = loss_of(
                backend,
                views,
                ids=backend.from_numpy(renamed, dtype),
                denominator=denominator,
                implementation=implementation,
            )
            assert_within(relative_error(got, expected), BOUND, "loss")


def test_ids_that_are_all_equal_leave_no_negative(backend: Any, implementation: str) -> None:
    views = batch(0, 2, 10, 4)
    ids = backend.from_numpy(np.full(10, 7))
    loss, grads = backend.value_and_grad(
        lambda *x: backend.module.nt_xent(*x, ids=ids, implementation=implementation),
        [backend.from_numpy(view) for view in views],
    )
    assert loss == 0
    assert not any(grad.any() for grad in grads)


def test_two_runs_give_the_same_bits(backend: Any, implementation: str) -> None:
    views = [backend.from_numpy(view, "float32") for view in batch(0, 2, 40, 33)]
    runs = [
        backend.value_and_grad(
            lambda *x: backend.module.nt_xent(*x, implementation=implementation), views
        )
        for _ in range(2)
    ]
    for first, second in zip([runs[0][0], *runs[0][1]], [runs[1][0], *runs[1][1]], strict=True):
        assert np.array_equal(first, second)


def test_a_strided_view_of_memory_is_as_good(backend: Any, implementation: str) -> None:
    wide = batch(0, 1, 40, 20)[0]
    strided = backend.from_numpy(wide)[::2, 1::3]
    packed = backend.from_numpy(np.ascontiguousarray(wide[::2, 1::3]))
    got, expected = (
        backend.value(backend.module.nt_xent, z, z, implementation=implementation)
        for z in (strided, packed)
    )
    assert_within(relative_error(got, expected), BOUND, "loss")
