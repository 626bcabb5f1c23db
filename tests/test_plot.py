"""`ntxent.plot.similarity`: what is in the picture, and where the marks are."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex

from _tolerances import assert_within, relative_error
from ntxent import plot

COLORS = {plot.POSITIVE: "positive", plot.SELF: "self", plot.SAME_ID: "equal ids"}


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """No figure stays open."""
    yield
    plt.close("all")


def batch(views: int, images: int, dim: int = 6, seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((images, dim))
    return [base + rng.standard_normal(base.shape) for _ in range(views)]


def cosines(views: list[Any]) -> Any:
    z = np.concatenate(views).astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    return z @ z.T


def squares(ax: Any) -> dict[str, set[tuple[int, int]]]:
    """The cells (row, column) of each kind of mark."""
    found: dict[str, set[tuple[int, int]]] = {}
    for collection in ax.collections:
        assert isinstance(collection, PolyCollection)
        edges, faces = collection.get_edgecolor(), collection.get_facecolor()
        color = to_hex(edges[0] if len(edges) else faces[0]) if collection.get_paths() else None
        centers = [path.vertices[:4].mean(0) for path in collection.get_paths()]
        for x, y in centers:
            assert_within(abs(x - round(x)) + abs(y - round(y)), 1e-9, "off the cell's center")
            found.setdefault(COLORS[color], set()).add((round(y), round(x)))
    return found


def test_a_batch_is_drawn_row_by_row(backend: Any) -> None:
    views = batch(2, 8)
    ax = plot.similarity(*[backend.from_numpy(view, "float32") for view in views])
    (image,) = ax.images
    assert_within(relative_error(np.asarray(image.get_array()), cosines(views), 1), 1e-6, "image")
    assert image.get_clim() == (-1, 1)
    assert (image.get_extent()[0], image.get_extent()[3]) == (-0.5, -0.5)  # row 0 at the top
    assert ax.get_ylim() == (15.5, -0.5)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["view 1", "view 2"]
    assert ax.get_xticks().tolist() == [3.5, 11.5]
    assert [text.get_text() for text in ax.get_legend().texts] == ["positive pair", "self pair"]
    ax.figure.draw_without_rendering()


@pytest.mark.parametrize("views", [2, 3])
def test_pairs_are_marked(views: int) -> None:
    images, ids = 5, np.array([4, 7, 4, 7, 4])
    found = squares(plot.similarity(*batch(views, images), ids=ids))
    rows = range(views * images)
    pairs = {(i, k) for i in rows for k in rows}
    own = {(i, k) for i, k in pairs if i == k}
    positive = {(i, k) for i, k in pairs if i % images == k % images} - own
    same = {(i, k) for i, k in pairs if ids[i % images] == ids[k % images]} - own - positive
    assert found == {"self": own, "positive": positive, "equal ids": same}


def test_equal_ids_have_a_name_in_the_legend(backend: Any) -> None:
    views = [backend.from_numpy(view) for view in batch(2, 4)]
    ids = backend.from_numpy(np.array([0, 0, 1, 2]))
    names = [text.get_text() for text in plot.similarity(*views, ids=ids).get_legend().texts]
    assert names == ["positive pair", "self pair", "equal ids"]


def block_means(views: list[Any], starts: list[int]) -> Any:
    """Pair by pair; of positive (or self) pairs alone in a cell that has any."""
    images, similar = len(views[0]), cosines(views)
    ends = [*starts[1:], images]
    cells = [
        range(view * images + first, view * images + last)
        for view in range(len(views))
        for first, last in zip(starts, ends, strict=True)
    ]
    means = np.empty((len(cells), len(cells)))
    for a, rows in enumerate(cells):
        for b, columns in enumerate(cells):
            pairs = [(i, k) for i in rows for k in columns]
            partners = [(i, k) for i, k in pairs if (i - k) % images == 0]
            means[a, b] = np.mean([similar[i, k] for i, k in partners or pairs])
    return means


@pytest.mark.parametrize(("views", "images"), [(2, 12), (2, 13), (3, 11)])
def test_a_cell_of_a_large_batch_is_a_mean(views: int, images: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(plot, "EXACT", 20)
    monkeypatch.setattr(plot, "BINNED", 12)
    arrays = batch(views, images)
    bins = 12 // views
    image = plot.similarity(*arrays).images[0]
    expected = block_means(arrays, [number * images // bins for number in range(bins)])
    assert_within(relative_error(np.asarray(image.get_array()), expected, 1), 1e-12, "means")


def test_equal_ids_of_a_large_batch_are_a_veil(monkeypatch: Any) -> None:
    monkeypatch.setattr(plot, "EXACT", 4)
    monkeypatch.setattr(plot, "BINNED", 6)
    monkeypatch.setattr(plot, "OUTLINED", 2)
    ids = np.array([5, 5, 5, 9, 9, 1, 2])
    ax = plot.similarity(*batch(2, 7), ids=ids)
    similarity, veil = ax.images
    assert veil.get_extent() == similarity.get_extent()
    shade = np.asarray(veil.get_array())
    assert to_hex(shade[0, 0]) == plot.SAME_ID
    bins = [[0, 1], [2, 3], [4, 5, 6]]
    share = [
        [np.mean([ids[i] == ids[k] and i != k for i in a for k in b]) for b in bins] for a in bins
    ]
    expected = plot.VEIL * np.tile(share, (2, 2))
    expected[(expected > 0) & (expected < plot.FAINTEST)] = plot.FAINTEST
    assert sorted({*expected.ravel()}) == [0, 0.1, plot.VEIL / 2]
    assert_within(relative_error(shade[..., 3], expected, 1), 1e-12, "opacity")


def test_the_diagonals_of_a_large_batch_are_lines() -> None:
    """Positive pairs lie between two green lines, self pairs on an orange one."""
    images = 500
    ax = plot.similarity(*batch(2, images))
    assert len(ax.images[0].get_array()) == plot.BINNED
    lines = [(to_hex(line.get_color()), *line.get_data()) for line in ax.lines]
    own = [data for color, *data in lines if color == plot.SELF]
    assert [list(map(list, data)) for data in own] == [
        [[-0.5, 499.5], [-0.5, 499.5]],
        [[499.5, 999.5], [499.5, 999.5]],
    ]
    green = [np.subtract(x, y) for color, x, y in lines if color == plot.POSITIVE]
    off = sorted({float(gap[0]) for gap in green})
    assert all(gap[0] == gap[1] for gap in green)
    assert off[0] < -images < off[1] < 0 < off[2] < images < off[3]
    assert np.abs(np.abs(off) - images).max() <= 20  # of 1000 rows
    for axis in (1, 2):  # and all within the picture
        ends = np.concatenate([line[axis] for line in lines if line[0] in COLORS])
        assert ends.min() >= -0.5
        assert ends.max() <= 999.5


def test_no_matrix_is_made() -> None:
    views = np.random.default_rng(0).standard_normal((2, 20000, 8)).astype(np.float32)
    ids = np.arange(20000) // 2
    plot.similarity(*views[:, :600])  # what matplotlib keeps for itself
    tracemalloc.start()
    plot.similarity(*views, ids=ids)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40000**2 * 4 / 100


def test_it_draws_where_it_is_told_to() -> None:
    _, (left, right) = plt.subplots(1, 2)
    assert plot.similarity(*batch(2, 4), ax=right) is right
    assert not left.images
    new = plot.similarity(*batch(2, 4))
    assert new.figure is not right.figure


@pytest.mark.parametrize("kind", [list, np.array])
def test_rows_can_be_named(kind: Any) -> None:
    names = ["A1", "B1", "A2", "B2"]
    ax = plot.similarity(*batch(2, 2), labels=kind(names))
    assert [tick.get_text() for tick in ax.get_yticklabels()] == names
    assert ax.get_yticks().tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match=r"labels must be 4, one for each row.*got 2"):
        plot.similarity(*batch(2, 2), labels=["A", "B"])


def test_dot_products_have_their_own_scale() -> None:
    views = [3 * view for view in batch(2, 5)]
    image = plot.similarity(*views, normalize=False).images[0]
    z = np.concatenate(views)
    assert_within(relative_error(np.asarray(image.get_array()), z @ z.T, 1), 1e-12, "products")
    assert image.get_clim() == (-np.abs(z @ z.T).max(), np.abs(z @ z.T).max())
    zeros = plot.similarity(np.zeros((3, 2)), np.zeros((3, 2)), normalize=False)
    assert zeros.images[0].get_clim() == (-1, 1)


@pytest.mark.parametrize("images", [5, 300])
@pytest.mark.parametrize("normalize", [True, False])
def test_bad_data_is_an_empty_cell(images: int, normalize: bool) -> None:
    z1, z2 = batch(2, images)
    z1[0, 1] = np.nan
    ax = plot.similarity(z1, z2, normalize=normalize)
    shown = np.ma.masked_invalid(ax.images[0].get_array()).mask
    assert shown[0].all()
    assert shown[:, 0].all()
    assert not shown[1:, 1:].any()
    assert np.isfinite(ax.images[0].get_clim()).all()
    ax.figure.draw_without_rendering()


def test_bad_input_is_refused_with_words(backend: Any) -> None:
    z = backend.from_numpy(np.eye(4))
    for views, error, words in (
        ((z,), ValueError, "at least two views"),
        ((z, z[:2]), ValueError, "one shape"),
        (([[1.0]], [[1.0]]), TypeError, "view 1 must be.*list"),
    ):
        with pytest.raises(error, match=words):
            plot.similarity(*views)
    with pytest.raises(ValueError, match="one for each image"):
        plot.similarity(z, z, ids=backend.from_numpy(np.arange(8)))
