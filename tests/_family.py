"""The hostile grid of `sup_con` and `info_nce`, and what the loops of `reference` say of it."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from _cases import GEOMETRIES, Array, Case, make_views
from ntxent import _plain_loops, reference

TEMPERATURES = (0.001, 0.05, 1.0)


class Truth(NamedTuple):
    """The float64 truth for inputs in the rounding of a dtype; rows without a loss are 0."""

    arrays: list[Array]
    options: dict[str, Any]  # labels or ids, as arrays of integers
    rows: Array
    loss: float
    gradients: list[Array]
    temperature_gradient: float
    lengths: list[Array]
    anchors: Array  # which rows the mean is over


def labels_of(kind: str, images: int, views: int) -> Array:
    """Labels of views * images rows, always with a positive for some row."""
    rows = views * images
    if kind == "pairs":  # one positive for each, whose loss may be far below 1
        return np.tile(np.arange(images), views)
    if kind == "one class":
        return np.full(rows, -3)
    rng = np.random.default_rng(rows)  # classes of one, two and more, of any integers
    labels = rng.integers(0, max(rows // 3, 1), rows) * 1_000_003 - 2**30
    labels[: rows // 4] = 2**24 + np.arange(rows // 4)  # alike as float32
    labels[-1] = labels[-2]
    return labels


EVERY = [
    (kind, Case(geometry, views, images, dim, temperature))
    for kind, (views, images, dim), geometry, temperature in itertools.product(
        ("pairs", "mixed", "one class"),
        ((2, 1, 5), (2, 20, 33), (1, 37, 129)),
        GEOMETRIES,
        TEMPERATURES,
    )
    if kind != "pairs" or views == 2
]
# Every second one, in turns, as JAX and TensorFlow take a quarter of a second for each.
SUP_CON = [case for number, case in enumerate(EVERY) if (number + number // 18) % 2 == 0]


@cache
def sup_con_truth(kind: str, case: Case, dtype: str) -> Truth:
    """A case of `SUP_CON`: all views as rows."""
    z = np.concatenate(make_views(case)).astype(dtype)
    labels = labels_of(kind, case.images, case.views).astype(np.int32)
    terms = reference.sup_con_terms(labels)
    return truth([z], {"labels": labels}, [z], terms, case, dtype)


KINDS = ("one way", "symmetric", "queue", "queue, ids", "own", "ids")
INFO_NCE = [
    (KINDS[(number + number // 12 + turn) % len(KINDS)], Case(geometry, 2, *size, temperature))
    for number, (geometry, size, temperature) in enumerate(
        itertools.product(GEOMETRIES, ((1, 5), (5, 8), (17, 129), (40, 32)), TEMPERATURES)
    )
    for turn in ((0, 3) if size[0] == 5 else (number // 3 % 2 * 3,))
]


@cache
def info_nce_truth(kind: str, case: Case, dtype: str) -> Truth:
    """A case of `INFO_NCE`: the views are the towers; kinds mix directions, negatives and ids."""
    rng = np.random.default_rng(case.images)
    arrays = [view.astype(dtype) for view in make_views(case)]
    options: dict[str, Any] = {"symmetric": kind in {"symmetric", "queue, ids"}}
    negatives = None
    if kind.startswith("queue"):
        negatives = rng.standard_normal((11, case.dim)).astype(dtype)
    if kind == "own":
        negatives = rng.standard_normal((case.images, 3, case.dim)).astype(dtype)
    if negatives is not None:
        arrays.append(negatives)
    ids = None
    if "ids" in kind:
        pairs = case.images + (11 if kind.startswith("queue") else 0)
        ids = options["ids"] = rng.integers(0, max(case.images - 1, 1), pairs).astype(np.int32)
    rows, terms = reference.info_nce_terms(
        arrays[0], arrays[1], negatives, ids, options["symmetric"]
    )
    return truth(arrays, options, rows, terms, case, dtype)


def truth(
    arrays: list[Array],
    options: dict[str, Any],
    flat: list[Array],
    terms: reference.Terms,
    case: Case,
    dtype: str,
) -> Truth:
    """The loops' losses and gradients of the rows `flat`."""
    temperature = float(np.dtype(dtype).type(case.temperature))
    rows = np.array(reference.losses(terms, flat, temperature, normalize=True))
    counted = {i: own for i, own in terms.items() if own}
    gradients, by_temperature = _plain_loops.gradients_of(
        reference.weighted(counted), flat, temperature, normalize=True
    )
    lengths = [
        np.array([[np.hypot.reduce(row)] for row in np.asarray(x, np.float64)]) for x in flat
    ]
    anchors = np.array([bool(own) for own in terms.values()])
    return Truth(
        arrays,
        options,
        rows,
        float(rows[anchors].mean()),
        gradients,
        by_temperature,
        lengths,
        anchors,
    )
