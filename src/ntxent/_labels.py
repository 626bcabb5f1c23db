"""Rows that have one label, for arrays of every backend: no mask of n^2 elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

Array = Any


class Classes(NamedTuple):
    """What `sup_con` needs to know of the labels, each (n,)."""

    groups: Array  # equal for rows of one label, 0 ... n-1
    others: Array  # how many other rows have the label, as floats
    ids: Array  # of pairs to leave out of the log-sum-exp: with itself, with an only positive
    within: Array  # whether the positives are in the log-sum-exp: there are several
    anchors: Array  # 1 for a row with a positive, 0 for one without


def classes(
    xp: Any,
    labels: Array,
    ordered: Array,
    number: Callable[[Array], Array],
    index: Array | None = None,
    search: Callable[..., Array] | None = None,
) -> Classes:
    """Integer labels are compared as integers; `number` makes floats of integers.

    `ordered` are the labels of all rows, sorted, of other processes' too; `index` are numbers that
    no other row has, by default the rows' own, which serve one process. Sorted labels say how many
    are equal, by two searches (`xp.searchsorted`, or what stands for it): shapes are known
    beforehand, which compilers ask for, and `unique` can't promise.

    Anchors are a sign, no comparison, of which XLA would know that it is 0 or 1: it would select 0
    for a row without a positive, and hide its NaN.
    """
    search = xp.searchsorted if search is None else search
    first = search(ordered, labels)
    others = search(ordered, labels, side="right") - first - 1
    count = number(others)
    if index is None:
        index = xp.cumsum(xp.ones_like(first), 0) - 1
    one = (others > 0) & (others < 2)  # not `==`, which in graphs of TensorFlow 1 is identity
    return Classes(
        groups=first,
        others=count,
        ids=xp.where(one, -1 - first, index),
        within=others > 1,
        anchors=xp.sign(count),
    )
