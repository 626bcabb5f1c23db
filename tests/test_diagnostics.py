"""`ntxent.diagnostics` against plain loops, for arrays of every backend."""

from __future__ import annotations

import doctest
import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ntxent
from _cases import Case, make_views
from _tolerances import assert_within, relative_error, tolerance
from ntxent import reference

OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "cold": {"temperature": 0.01},
    "warm": {"temperature": 2.0},
    "ids": {"ids": np.arange(13) // 3},
    "dot products": {"normalize": False, "temperature": 1.0},
}


def looped(
    *views: Any, temperature: float = 0.1, ids: Any = None, normalize: bool = True
) -> dict[str, float]:
    """Every number, one pair of rows after the other."""
    images, ids = len(views[0]), range(len(views[0])) if ids is None else ids
    z = [np.array(row, np.float64) for view in views for row in view]
    if normalize:
        z = [row / np.linalg.norm(row) if row.any() else row for row in z]
    ranks, alignment, positive, effective, negative, closeness = [], [], [], [], [], []
    for i, row in enumerate(z):
        others = [k for k in range(len(z)) if ids[k % images] != ids[i % images]]
        similar = [row @ z[k] for k in others]
        weights = np.exp([s / temperature - max(similar) / temperature for s in similar])
        weights /= weights.sum()
        effective.append(math.exp(-sum(w * math.log(w) for w in weights if w > 0)))
        negative += similar
        closeness += [math.exp(-2 * np.sum((row - z[k]) ** 2)) for k in others]
        for j in range(i % images, len(z), images):
            if j != i:
                positive.append(row @ z[j])
                alignment.append(np.sum((row - z[j]) ** 2))
                ranks.append(sum(s >= positive[-1] for s in similar))
    return {
        "loss": reference.nt_xent(*views, temperature=temperature, ids=ids, normalize=normalize),
        "top1": np.mean([rank < 1 for rank in ranks]),
        "top5": np.mean([rank < 5 for rank in ranks]),
        "alignment": np.mean(alignment),
        "uniformity": math.log(np.mean(closeness)),
        "effective_negatives": np.mean(effective),
        "positive_similarity": np.mean(positive),
        "negative_similarity": np.mean(negative),
        "rows": len(z),
        "negatives": len(negative) / len(z),
    }


def batch(views: int = 2, images: int = 13, dim: int = 5) -> list[Any]:
    """Positives that are found, some of them, and missed."""
    rng = np.random.default_rng(views)
    base = rng.standard_normal((images, dim))
    return [base + 0.6 * rng.standard_normal(base.shape) for _ in range(views)]


def assert_like(found: Any, expected: dict[str, float], bound: float) -> None:
    assert list(vars(found)) == list(expected)
    for name, value in vars(found).items():
        # Means of similarities are near 0, which is no reason to know them better.
        error = relative_error(value, expected[name], scale=0.1)
        assert_within(error, bound, name)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("tile", [512, 8])
def test_it_is_what_loops_find(
    backend: Any, monkeypatch: Any, name: str, views: int, dtype: str, tile: int
) -> None:
    monkeypatch.setattr("ntxent.numpy._pairs.tiled.TILE", tile)
    arrays = [view.astype(dtype) for view in batch(views)]
    expected = looped(*arrays, **OPTIONS[name])
    assert 0 < expected["top1"] < expected["top5"] < 1
    given = OPTIONS[name].copy()
    if "ids" in given:
        given["ids"] = backend.from_numpy(given["ids"])
    found = ntxent.diagnostics(*[backend.from_numpy(x, dtype) for x in arrays], **given)
    assert_like(found, expected, 10 * tolerance(dtype, "loss", given.get("temperature", 0.1)))


def test_half_precision_is_that_of_its_numbers(backend: Any) -> None:
    for dtype in backend.dtypes:
        arrays = [backend.from_numpy(x, dtype) for x in batch()]
        wide = "float64" if dtype == "float64" else "float32"
        as_numpy = [backend.to_numpy(x).astype(wide) for x in arrays]
        assert ntxent.diagnostics(*arrays) == ntxent.diagnostics(*as_numpy)


def test_a_temperature_of_the_backend_serves(backend: Any) -> None:
    views = [backend.from_numpy(x, "float32") for x in batch()]
    temperature = backend.from_numpy(np.float32(0.25))
    found = ntxent.diagnostics(*views, temperature=temperature)
    assert found == ntxent.diagnostics(*views, temperature=0.25)


@pytest.mark.only("torch")
def test_a_graph_is_left_alone() -> None:
    import torch

    z1, z2 = (torch.tensor(x, requires_grad=True) for x in batch())
    plain = ntxent.diagnostics(z1.detach(), z2.detach(), temperature=0.25)
    assert ntxent.diagnostics(z1 * 1, z2, temperature=torch.tensor(0.25).requires_grad_()) == plain
    assert z1.requires_grad


@pytest.mark.covering(("dtype",), ("dim",), pairs=False)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("dim", [1, 7, 128, 513])
def test_a_collapsed_encoder_finds_nothing(dtype: str, dim: int) -> None:
    """Ties count against a positive, also where the products of equal rows differ in rounding."""
    row = np.random.default_rng(dim).standard_normal(dim)
    for images in (4, 300, 700):
        view = np.tile(row, (images, 1)).astype(dtype)
        found = ntxent.diagnostics(view, view)
        assert (found.top1, found.top5) == (0, 0)
        assert_within(abs(found.uniformity), 1e-5, "uniformity")
        assert_within(relative_error(found.effective_negatives, 2 * images - 2), 1e-5, "negatives")


def test_orthogonal_images_are_the_best_there_is() -> None:
    found = ntxent.diagnostics(np.eye(16), 3 * np.eye(16))
    assert (found.top1, found.alignment, found.positive_similarity) == (1, 0, 1)
    assert_within(relative_error(found.uniformity, -4.0), 1e-12, "uniformity")
    assert_within(relative_error(found.effective_negatives, 30.0), 1e-12, "negatives")


def test_a_rank_counts_the_negatives_above() -> None:
    """Two of row 0's negatives are nearer than its positive, and one ties with it."""
    angles = np.radians([[0, 10, 100, 200], [30, 20, 190, 330]])
    z1, z2 = np.stack((np.cos(angles), np.sin(angles)), axis=-1)
    found = ntxent.diagnostics(z1, z2)
    assert_like(found, looped(z1, z2), 1e-12)
    third = ntxent.diagnostics(*(np.array([[1.0, 0], [0.6, 0.8]]) for _ in range(2)))
    assert third.top1 == 1
    tied = ntxent.diagnostics(np.eye(3)[[0, 1]], np.eye(3)[[2, 2]])
    assert (tied.top1, tied.top5) == (0, 1)


def test_the_hardest_negative_is_alone_when_it_is_cold() -> None:
    views = batch()
    counts = [
        ntxent.diagnostics(*views, temperature=tau).effective_negatives for tau in (1e-4, 0.1, 1e4)
    ]
    assert_within(relative_error(counts[0], 1.0), 1e-3, "the hardest")
    assert 1 < counts[1] < 24
    assert_within(relative_error(counts[2], 24.0), 1e-6, "all")


@pytest.mark.parametrize("images", [1, 5])
def test_without_negatives_there_is_no_mean_of_them(images: int) -> None:
    views = batch(images=images)
    found = ntxent.diagnostics(*views, ids=np.zeros(images, int))
    assert (found.loss, found.top1, found.top5) == (0, 1, 1)
    assert (found.negatives, found.effective_negatives) == (0, 0)
    assert math.isnan(found.uniformity)
    assert math.isnan(found.negative_similarity)
    assert found.alignment > 0


def test_a_zero_row_has_no_direction() -> None:
    views = batch()
    views[0][3] = 0
    assert_like(ntxent.diagnostics(*views), looped(*views), 1e-11)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_data_shows(bad: float) -> None:
    z1, z2 = np.eye(30), np.eye(30)
    z1[4, 4] = bad
    found = ntxent.diagnostics(z1, z2)
    for name in ("loss", "alignment", "uniformity", "effective_negatives"):
        assert math.isnan(getattr(found, name))
    assert math.isnan(found.positive_similarity)
    assert math.isnan(found.negative_similarity)
    assert found.top1 == 0  # everyone's negatives include a NaN
    assert_within(relative_error(found.top5, 58 / 60), 1e-12, "top5")


def test_rows_of_any_length_are_served() -> None:
    views = make_views(Case("norms", 2, 9, 6, 0.1))
    unit = [view / np.linalg.norm(view, axis=1, keepdims=True) for view in views]
    assert_like(ntxent.diagnostics(*views), looped(*unit), 1e-11)


Z = np.linspace(-1, 1, 12).reshape(4, 3)
FAILURES: dict[str, tuple[Any, type[Exception], str]] = {
    "one view": (lambda a: ((a(Z),), {}), ValueError, "at least two views.*got 1"),
    "1-d": (lambda a: ((a(Z[0]), a(Z[0])), {}), ValueError, r"view 1 must be 2-d.*\(3,\)"),
    "shapes": (lambda a: ((a(Z), a(Z[:2])), {}), ValueError, r"one shape.*\(4, 3\).*\(2, 3\)"),
    "empty": (lambda a: ((a(Z[:0]), a(Z[:0])), {}), ValueError, r"at least one row.*\(0, 3\)"),
    "a list": (lambda a: ((a(Z), Z.tolist()), {}), TypeError, "view 2 must be.*list"),
    "integers": (lambda a: ((a(Z, "int64"),) * 2, {}), TypeError, "floating.*int64"),
    "tau": (lambda a: ((a(Z), a(Z)), {"temperature": 0}), ValueError, "positive and finite; got 0"),
    "tau string": (lambda a: ((a(Z), a(Z)), {"temperature": "1"}), TypeError, "a number.*str"),
    "ids": (lambda a: ((a(Z), a(Z)), {"ids": a(Z[:, 0])}), TypeError, "ids must be integers"),
    "ids by row": (
        lambda a: ((a(Z), a(Z)), {"ids": a(np.arange(8))}),
        ValueError,
        r"ids must have shape \(4,\), one for each image",
    ),
    "normalize": (lambda a: ((a(Z), a(Z)), {"normalize": 1}), TypeError, "True or False; got int"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_bad_input_is_refused_with_words(backend: Any, name: str) -> None:
    arguments, error, words = FAILURES[name]
    views, options = arguments(backend.from_numpy)
    with pytest.raises(error, match=words):
        ntxent.diagnostics(*views, **options)


def test_a_masked_array_is_refused() -> None:
    masked = np.ma.masked_array(Z, mask=Z > 0)
    with pytest.raises(TypeError, match="MaskedArray"):
        ntxent.diagnostics(masked, masked)


shapes = st.tuples(st.integers(2, 4), st.integers(2, 12), st.integers(2, 9))


@given(shapes, st.sampled_from([0.02, 0.5]))
def test_order_rotations_and_lengths_do_not_matter(shape: Any, temperature: float) -> None:
    views = batch(*shape)
    rng = np.random.default_rng(shape)
    order = rng.permutation(shape[1])
    rotation, _ = np.linalg.qr(rng.standard_normal((shape[2], shape[2])))
    lengths = np.exp(rng.uniform(-5, 5, (shape[1], 1)))
    expected = vars(ntxent.diagnostics(*views, temperature=temperature))
    for changed in (
        [view[order] for view in views],
        views[::-1],
        [view @ rotation for view in views],
        [view * lengths for view in views],
    ):
        assert_like(ntxent.diagnostics(*changed, temperature=temperature), expected, 1e-10)


@given(shapes, st.sampled_from([0.02, 0.5, 5.0]))
def test_every_number_is_in_its_range(shape: Any, temperature: float) -> None:
    found = ntxent.diagnostics(*batch(*shape), temperature=temperature)
    assert 0 <= found.top1 <= found.top5 <= 1
    assert 0 <= found.alignment <= 4
    assert -8 <= found.uniformity <= 0
    assert 1 - 1e-9 <= found.effective_negatives <= found.negatives * (1 + 1e-9)
    # Between unit rows a squared distance is two less than twice the similarity.
    assert_within(abs(found.alignment - 2 + 2 * found.positive_similarity), 1e-12, "alignment")


def test_no_matrix_is_made() -> None:
    views = np.random.default_rng(0).standard_normal((2, 4096, 8)).astype(np.float32)
    tracemalloc.start()
    ntxent.diagnostics(*views)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8192**2 * 4 / 10


def test_the_example_runs_and_the_sections_are_there() -> None:
    (test,) = doctest.DocTestFinder(recurse=False).find(ntxent.diagnostics, globs={})
    result = doctest.DocTestRunner().run(test)
    assert result.attempted >= 5
    assert result.failed == 0
    for section in ("Parameters", "Returns", "Raises", "Notes", "References", "Examples"):
        assert f"{section}\n    {'-' * len(section)}" in (ntxent.diagnostics.__doc__ or "")


def test_what_the_package_lacks_is_an_attribute_error() -> None:
    assert {"diagnostics", "plot", "available_backends"} <= set(dir(ntxent))
    assert not hasattr(ntxent, "diagnosis")
