"""`sup_con` and `info_nce` against the loops: the same table of errors as `nt_xent`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from _adapters import call, cut_into
from _cases import Case
from _family import INFO_NCE, SUP_CON, Truth, info_nce_truth, sup_con_truth
from _tolerances import (
    EPSILON,
    HALF_LOSS,
    arithmetic,
    assert_within,
    gradient_error,
    relative_error,
    tolerance,
)
from ntxent import reference


def errors(
    backend: Any, name: str, truth: Truth, dtype: str, temperature: float, implementation: str
) -> dict[str, float]:
    """Of the loss, the rows, the gradients of all arrays and that of the temperature."""
    inputs = [backend.from_numpy(x, dtype) for x in truth.arrays]
    options = {"implementation": implementation, **truth.options}

    def loss(*arrays: Any) -> Any:
        return call(backend, name, arrays[:-1], options, temperature=arrays[-1])

    known = [(k, v.tobytes() if isinstance(v, np.ndarray) else v) for k, v in options.items()]
    tau = backend.from_numpy(np.asarray(temperature), dtype)
    value, grads = backend.value_and_grad(loss, [*inputs, tau], key=(name, *known))
    rows = backend.value(
        lambda *arrays: call(
            backend, name, arrays, options, temperature=temperature, reduction="none"
        ),
        *inputs,
    )
    assert value.dtype == rows.dtype
    assert not rows[~truth.anchors].any()
    flat = [np.reshape(g, e.shape) for g, e in zip(grads[:-1], truth.gradients, strict=True)]
    losses = truth.rows[truth.anchors]
    size = max(-np.expm1(-losses).mean(), np.finfo(np.float32).tiny / np.finfo(np.float32).eps)
    return {
        "loss": relative_error(value, truth.loss),
        "row": relative_error(rows, truth.rows),
        "gradient": gradient_error(
            flat, truth.gradients, truth.lengths, losses, temperature, dtype
        ),
        "temperature": relative_error(grads[-1], truth.temperature_gradient, size / temperature**2),
    }


def assert_table(
    backend: Any, name: str, truth: Truth, dtype: str, case: Any, how: str, note: Any
) -> None:
    """Every error is within the table."""
    found = errors(backend, name, truth, dtype, case.temperature, how)
    for what, error in found.items():
        quantity = "gradient" if what == "temperature" else what
        bound = tolerance(arithmetic(backend, dtype, how), quantity, case.temperature)
        assert_within(error, bound, f"{what} of {name}, {case} in {dtype}")
        note(f"{name}, {what}", backend.name, error / bound)


@pytest.mark.covering(
    ("kind", "temperature", "implementation"), ("kind", "dtype", "implementation")
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("kind", "case"), SUP_CON, ids=str)
def test_sup_con(
    backend: Any, implementation: str, dtype: str, kind: str, case: Case, note_worst: Any
) -> None:
    truth = sup_con_truth(kind, case, dtype)
    assert_table(backend, "sup_con", truth, dtype, case, implementation, note_worst)


@pytest.mark.covering(
    ("kind", "temperature", "implementation"), ("kind", "dtype", "implementation")
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("kind", "case"), INFO_NCE, ids=str)
def test_info_nce(
    backend: Any, implementation: str, dtype: str, kind: str, case: Case, note_worst: Any
) -> None:
    truth = info_nce_truth(kind, case, dtype)
    assert_table(backend, "info_nce", truth, dtype, case, implementation, note_worst)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["sup_con", "info_nce"])
@pytest.mark.parametrize("temperature", [0.005, 0.1])
def test_half_precision_is_no_worse_than_dense(
    backend: Any, name: str, dtype: str, temperature: float, monkeypatch: Any
) -> None:
    if dtype not in backend.dtypes:
        pytest.skip(f"{backend.name} has no {dtype}")
    rng = np.random.default_rng(0)
    arrays = [
        backend.to_numpy(backend.from_numpy(x, dtype)).astype(np.float64)
        for x in rng.standard_normal((3, 30, 16))
    ]
    options: dict[str, Any] = {"symmetric": True}
    _, terms = reference.info_nce_terms(*arrays, None, True)
    if name == "sup_con":
        arrays, options = arrays[:1], {"labels": np.arange(30) % 7}
        terms = reference.sup_con_terms(options["labels"])
    rows = np.array(reference.losses(terms, arrays, temperature, normalize=True))

    def found(implementation: str) -> tuple[float, list[Any]]:
        given = [backend.from_numpy(x, dtype) for x in arrays]
        given.append(backend.from_numpy(np.array(temperature), "float32"))
        how = {"implementation": implementation}
        value, (*grads, _) = backend.value_and_grad(
            lambda *x: call(backend, name, x[:-1], options, temperature=x[-1], **how),
            given,
            key=("half", name, implementation),
        )
        assert value.dtype == np.float32
        return relative_error(value, rows.mean()), [g.astype(np.float64) for g in grads]

    error, expected = found("dense")
    cut_into(monkeypatch, backend.tiled, 8)
    tiled_error, grads = found("tiled")
    assert_within(tiled_error, 2 * error + HALF_LOSS, "loss")
    for got, truth in zip(grads, expected, strict=True):
        assert_within(
            relative_error(got, truth, np.abs(truth).max()), 2 * EPSILON[dtype], "gradient"
        )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_rows_without_a_positive_are_left_out_of_the_mean(backend: Any, reduction: str) -> None:
    """They are 0 in "none", and negatives of all others."""
    z = np.random.default_rng(0).standard_normal((6, 4))
    labels = np.array([4, 4, 9, 4, 7, 1])
    rows = np.array(reference.losses(reference.sup_con_terms(labels), [z], 0.1, normalize=True))
    expected = {"mean": rows[[0, 1, 3]].mean(), "sum": rows.sum(), "none": rows}[reduction]
    got = backend.value(
        lambda z: call(backend, "sup_con", [z], {"labels": labels}, reduction=reduction),
        backend.from_numpy(z),
    )
    assert_within(relative_error(got, expected), 1e-12, reduction)
    assert (rows[[2, 4, 5]] == 0).all()


@pytest.mark.parametrize(
    "labels",
    [
        np.array([2**24, 2**24 + 1, 2**24, 2**24 + 1], np.int64),
        np.array([-1, 255, -1, 255], np.int16),
        np.array([0, 255, 0, 255], np.uint8),
        np.array([-(2**31), 2**31 - 1, -(2**31), 2**31 - 1], np.int32),
    ],
    ids=str,
)
def test_labels_are_compared_as_integers(backend: Any, labels: Any) -> None:
    z = np.random.default_rng(0).standard_normal((4, 3))
    expected = reference.sup_con(z, [0, 1, 0, 1])
    got = backend.value(
        lambda z: call(backend, "sup_con", [z], {"labels": labels}), backend.from_numpy(z)
    )
    assert_within(relative_error(got, expected), 1e-12, str(labels))


def test_pairs_of_labels_are_nt_xent(backend: Any, implementation: str) -> None:
    """Also where the loss is 1e-20, which a difference of L and the positive can't tell from 0."""
    rng = np.random.default_rng(0)
    first = rng.standard_normal((16, 32))
    views = [backend.from_numpy(x) for x in (first, first + 0.01 * rng.standard_normal((16, 32)))]
    both = backend.from_numpy(np.concatenate([backend.to_numpy(view) for view in views]))
    labels = {"labels": np.tile(np.arange(16), 2), "implementation": implementation}
    one = backend.value(backend.module.nt_xent, *views, temperature=0.02)
    other = backend.value(lambda z: call(backend, "sup_con", [z], labels, temperature=0.02), both)
    assert 0 < one < 1e-8
    assert_within(relative_error(other, one), 1e-12, "loss")


def test_one_pair_without_negatives_is_zero(backend: Any, implementation: str) -> None:
    """With a gradient of zero, not NaN, also where all there is is left out by its id."""
    q, k, n = np.random.default_rng(0).standard_normal((3, 1, 4))
    for arrays, ids in (([q, k], None), ([q, k, n], np.array([5, 5]))):
        options = {"implementation": implementation, "symmetric": True}
        if ids is not None:
            options["ids"] = ids
        value, grads = backend.value_and_grad(
            lambda *given, options=options: call(backend, "info_nce", given, options),
            [backend.from_numpy(x) for x in arrays],
        )
        assert value == 0
        assert not any(g.any() for g in grads)


def test_a_queue_alone_counts_where_all_pairs_have_one_id(backend: Any) -> None:
    """MoCo's form: the other keys of the batch are no negatives."""
    q, k = np.random.default_rng(0).standard_normal((2, 5, 4))
    queue = np.random.default_rng(1).standard_normal((7, 4))
    ids = np.array([0] * 5 + [1] * 7)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, k, queue)]
    positive = (unit[0] * unit[1]).sum(1) / 0.2
    others = unit[0] @ unit[2].T / 0.2
    expected = np.log1p(np.exp(others - positive[:, None]).sum(1)).mean()
    got = backend.value(
        lambda *given: call(backend, "info_nce", given, {"ids": ids}, temperature=0.2),
        *(backend.from_numpy(x) for x in (q, k, queue)),
    )
    assert_within(relative_error(got, expected), 1e-12, "loss")


def test_the_order_of_rows_does_not_matter(backend: Any, implementation: str) -> None:
    rng = np.random.default_rng(0)
    z, labels, order = rng.standard_normal((20, 5)), rng.integers(0, 6, 20), rng.permutation(20)
    values = [
        backend.value(
            lambda z, labels=labels: call(
                backend, "sup_con", [z], {"labels": labels, "implementation": implementation}
            ),
            backend.from_numpy(z),
        )
        for z, labels in ((z, labels), (z[order], labels[order]))
    ]
    assert_within(relative_error(*values), 1e-13, "loss")


@pytest.mark.parametrize("name", ["sup_con", "info_nce"])
def test_without_normalisation(backend: Any, implementation: str, name: str) -> None:
    """Dot products as they are, of rows of any length."""
    rng = np.random.default_rng(0)
    arrays = list(3 * rng.standard_normal((3, 9, 4)))
    options: dict[str, Any] = {"symmetric": True}
    if name == "sup_con":
        arrays, options = arrays[:1], {"labels": rng.integers(0, 3, 9)}
    expected = getattr(reference, name)(*arrays, **options, temperature=0.5, normalize=False)
    got = backend.value(
        lambda *given: call(
            backend,
            name,
            given,
            options,
            temperature=0.5,
            normalize=False,
            implementation=implementation,
        ),
        *(backend.from_numpy(x) for x in arrays),
    )
    assert_within(relative_error(got, expected), 1e-12, "loss")
