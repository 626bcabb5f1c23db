"""The formulas as plain loops in float64: `from ntxent.reference import nt_xent`.

This is the way a reader of the papers would first write them. Nothing here is fast, and nothing is
shared with the backends: it is the oracle that their tests are held to. Each loss is a dictionary
from every row to its terms (`ntxent._plain_loops.Term`): which row it must find, among which, and
with what weight. Sizes, as in arXiv 2002.05709: N images, two (or V) augmented views of each, 2N
(or VN) rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ntxent._plain_loops import Array, Term, gradients_of, loss_of, similarities, stacked

__all__ = ["gradients", "info_nce", "nt_xent", "row_losses", "sup_con"]

Terms = dict[int, list[Term]]


def nt_xent(
    *views: Any,
    temperature: float = 0.1,
    ids: Any = None,
    denominator: str = "all",
    normalize: bool = True,
) -> float:
    r"""NT-Xent by the paper's words: the mean over all rows of `row_losses`.

    Parameters
    ----------
    *views : array_like, shape (N, d)
        Two or more views of the same N images, row i of each from image i.
    temperature : float, default 0.1
        The divisor of the similarities.
    ids : sequence of int, length N, optional
        Images with equal ids are never negatives of each other; by default all differ.
    denominator : {"all", "one_positive", "negatives"}, default "all"
        As in the backends.
    normalize : bool, default True
        Divide every row by its length.

    Returns
    -------
    float
        The loss, arXiv 2002.05709, eq. 1. Time and memory O(n^2 d) in Python's own loops, n = VN.

    Examples
    --------
    >>> from ntxent.reference import nt_xent
    >>> same = [[1.0, 0.0], [1.0, 0.0]]
    >>> round(nt_xent(same, same), 6)  # identical rows: log(2N - 1)
    1.098612
    """
    return mean(
        row_losses(
            *views, temperature=temperature, ids=ids, denominator=denominator, normalize=normalize
        )
    )


def row_losses(
    *views: Any,
    temperature: float = 0.1,
    ids: Any = None,
    denominator: str = "all",
    normalize: bool = True,
) -> list[float]:
    """The loss of every row.

    Parameters
    ----------
    *views, temperature, ids, denominator, normalize
        As in `nt_xent`.

    Returns
    -------
    list of float
        Those of the first view's rows, then those of the second's, and so on.

    Examples
    --------
    >>> from ntxent.reference import row_losses
    >>> [round(row, 6) for row in row_losses([[1.0, 0.0]] * 2, [[1.0, 0.0]] * 2)]
    [1.098612, 1.098612, 1.098612, 1.098612]
    """
    terms = nt_xent_terms(len(views), len(views[0]), ids, denominator)
    return losses(terms, views, temperature, normalize)


def gradients(
    *views: Any,
    temperature: float = 0.1,
    ids: Any = None,
    denominator: str = "all",
    normalize: bool = True,
    upstream: Any = None,
) -> tuple[list[Array], float]:
    """The gradients of the views and of the temperature, pair by pair.

    Parameters
    ----------
    *views, temperature, ids, denominator, normalize
        As in `nt_xent`.
    upstream : sequence of float, length VN, optional
        The weights of the row losses; by default 1/n each, as in the mean.

    Returns
    -------
    tuple of (list of ndarray, float)
        One gradient for each view, of its shape and in float64, and that of the temperature.

    Examples
    --------
    >>> from ntxent.reference import gradients
    >>> (g1, g2), by_temperature = gradients([[1.0, 0.0]] * 2, [[1.0, 0.0]] * 2)
    >>> g1.shape, round(float(by_temperature), 6)
    ((2, 2), 0.0)
    """
    terms = nt_xent_terms(len(views), len(views[0]), ids, denominator)
    return gradients_of(weighted(terms, upstream), views, temperature, normalize)


def nt_xent_terms(views: int, images: int, ids: Any, denominator: str) -> Terms:
    """Row i must find the other views of its image."""
    negatives = negative_rows(views, images, ids)
    return {
        i: [Term(i, j, compared_with(own, negatives[i], j, denominator), 1 / len(own)) for j in own]
        for i, own in positive_pairs(views, images).items()
    }


def positive_pairs(views: int, images: int) -> dict[int, list[int]]:
    """For every row its image's rows in the other views: with two views {0: [N], N: [0], ...}."""
    pairs = {}
    for view in range(views):
        for image in range(images):
            pairs[view * images + image] = [
                other * images + image for other in range(views) if other != view
            ]
    return pairs


def negative_rows(views: int, images: int, ids: Any) -> dict[int, list[int]]:
    """For every row the rows whose image has another id."""
    names = list(range(images)) if ids is None else [int(x) for x in ids]
    rows = range(views * images)
    return {i: [k for k in rows if names[k % images] != names[i % images]] for i in rows}


def compared_with(own: list[int], negatives: list[int], j: int, denominator: str) -> list[int]:
    """The rows k of the denominator for the positive j."""
    if denominator == "all":
        return [*own, *negatives]
    if denominator == "one_positive":
        return [j, *negatives]
    return negatives


def sup_con(z: Any, labels: Any, *, temperature: float = 0.1, normalize: bool = True) -> float:
    """SupCon, arXiv 2004.11362, eq. 2: row i must find every other row of its label.

    Each among all other rows. Rows without another of their label are left out of the mean, which
    is 0 if that leaves none.

    Parameters
    ----------
    z : array_like, shape (n, d)
        One row an image, or several.
    labels : sequence of int, length n
        Any integers.
    temperature, normalize
        As in `nt_xent`.

    Returns
    -------
    float
        The loss.

    Examples
    --------
    >>> from ntxent.reference import sup_con
    >>> round(sup_con([[1.0, 0.0]] * 4, [7, 7, 7, 3]), 6)  # identical rows: log(n - 1)
    1.098612
    """
    terms = sup_con_terms(labels)
    return mean(losses({i: own for i, own in terms.items() if own}, [z], temperature, normalize))


def sup_con_terms(labels: Any) -> Terms:
    """Row i must find the other rows of its label, each among all other rows."""
    names = [int(x) for x in labels]
    rows = range(len(names))
    terms = {}
    for i in rows:
        others = [k for k in rows if k != i]
        own = [j for j in others if names[j] == names[i]]
        terms[i] = [Term(i, j, others, 1 / len(own)) for j in own]
    return terms


def info_nce(
    query: Any,
    key: Any,
    negatives: Any = None,
    *,
    temperature: float = 0.1,
    ids: Any = None,
    symmetric: bool = False,
    normalize: bool = True,
) -> float:
    """InfoNCE, arXiv 1807.03748: query i must find key i among all keys and the negatives.

    Parameters
    ----------
    query, key : array_like, shape (N, d)
        Row i of both is pair i.
    negatives : array_like, shape (K, d) or (N, M, d), optional
        More keys: K that all queries share, or M of each query's own.
    temperature : float, default 0.1
        The divisor of the similarities.
    ids : sequence of int, length N or N + K, optional
        Pairs and shared negatives with equal ids are never negatives of each other.
    symmetric : bool, default False
        The mean of that and of key i finding query i among all queries (CLIP).
    normalize : bool, default True
        Divide every row by its length.

    Returns
    -------
    float
        The loss.

    Examples
    --------
    >>> from ntxent.reference import info_nce
    >>> round(info_nce([[1.0, 0.0]] * 3, [[1.0, 0.0]] * 3), 6)  # identical rows: log N
    1.098612
    """
    arrays, terms = info_nce_terms(query, key, negatives, ids, symmetric)
    return mean(losses(terms, arrays, temperature, normalize))


def info_nce_terms(
    query: Any, key: Any, negatives: Any, ids: Any, symmetric: bool
) -> tuple[list[Any], Terms]:
    """The rows, [query, key, negatives], and the terms of every pair."""
    pairs = len(query)
    arrays, names = [query, key], list(range(pairs))
    own: list[list[int]] = [[] for _ in range(pairs)]  # negatives of this query alone
    shared: list[int] = []
    if ids is not None:
        names = [int(x) for x in ids]
    if negatives is not None:
        flat = np.asarray(negatives, np.float64)
        arrays.append(flat.reshape(-1, flat.shape[-1]))
        places = [2 * pairs + k for k in range(len(arrays[2]))]
        if flat.ndim == 3:
            own = np.array(places).reshape(pairs, -1).tolist()
        else:
            shared = places
    terms: Terms = {}
    for i in range(pairs):
        others = [k for k in range(pairs) if names[k] != names[i]]
        far = [k for k in shared if ids is None or names[k - pairs] != names[i]]
        keys = [pairs + i, *(pairs + k for k in others), *far, *own[i]]
        terms[i] = [Term(i, pairs + i, keys, 1.0)]
        if symmetric:
            terms[i] = [
                Term(i, pairs + i, keys, 0.5),
                Term(pairs + i, i, [i, *others], 0.5),
            ]
    return arrays, terms


def losses(terms: Terms, arrays: Sequence[Any], temperature: float, normalize: bool) -> list[float]:
    """The loss of every row."""
    similar = similarities(stacked(arrays, normalize))
    return [loss_of(own, similar, temperature) for own in terms.values()]


def weighted(terms: Terms, upstream: Any = None) -> list[Term]:
    """All terms, those of each row times its upstream; by default that of the mean."""
    count = max(len(terms), 1)
    rows = [1 / count] * len(terms) if upstream is None else [float(x) for x in upstream]
    return [
        term._replace(weight=term.weight * row)
        for own, row in zip(terms.values(), rows, strict=True)
        for term in own
    ]


def mean(rows: Sequence[float]) -> float:
    """The mean of the losses, 0 of none."""
    return math.fsum(rows) / max(len(rows), 1)
