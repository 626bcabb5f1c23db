"""The formula, once, for every backend.

Rows have unit length; s_ik = z_i . z_k, temperature tau, `scale` = 1/tau. Each row has a
log-sum-exp over the rows that it must tell apart from its positive,

    L_i = log sum_k exp(s_ik / tau)                 O(n^2 d), the one expensive operation

and the family is one line each over L and the few positives of a row:

    l_i = softplus(L_i - s_ij / tau)                NT-Xent (arXiv 2002.05709, eq. 1), InfoNCE
    l_i = L_i - mean_p s_ip / tau                   SupCon (arXiv 2004.11362, eq. 2)

The first is -log(exp(s_ij/tau) / (exp(s_ij/tau) + exp(L_i))), divided through, where L_i is over
the negatives alone. Written so it keeps its digits when l_i is small, where `logsumexp(everything)
- positive` has lost them all (docs/numerics.md). In the second L_i is over all other rows: with two
or more positives l_i is at least log 2, and a difference keeps its digits.

`pair_logsumexp` is the expensive operation, and each backend makes that one fast; everything on
this page is O(n d) and differentiated by the backend. All checks are in `_spec`, and nothing here
knows a framework: `ops` is a backend's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from operator import add
from typing import Any, Protocol

from ntxent import _checks, _spec
from ntxent._classes import Classes

Array = Any


class Ops(_checks.ArrayKind, Protocol):
    """The names over which the family is written; other arithmetic is the arrays' own `+ - *`."""

    def evaluate(
        self,
        loss: Callable[[Sequence[Array], Any, str | None], Array],
        arrays: Sequence[Array],
        temperature: Any,
        implementation: str | None,
    ) -> Array:
        """`loss(arrays, temperature, implementation)` in the backend's way to differentiate it."""

    def count(self, rows: Array) -> Any:
        """How many rows: an int, or a 0-d array where it isn't known yet."""

    def stack(self, *arrays: Array) -> Array:
        """The rows of all arrays, one after the other, in float32 or wider."""

    def stack_unit(self, *arrays: Array) -> Array:
        """The same, each row divided by its length; a zero row stays zero."""

    def inverse(self, temperature: Any, like: Array) -> Any:
        """1/temperature; of an array in `like`'s dtype, NaN if it is not positive and finite."""

    def repeat(self, ids: Array, times: int) -> Array:
        """The ids over and over, once a view."""

    def one_id(self, rows: Array, value: int) -> Array:
        """The same id for all rows."""

    def classes(self, labels: Array) -> Classes:
        """Which rows have one label, and how many others each row has."""

    def positive_means(self, rows: Array, classes: Classes) -> Array:
        """The mean of the other rows of each row's class, (n, d); 0 where there is none."""

    def partner_logits(self, rows: Array, partners: Array | int, scale: Any) -> Array:
        """`scale` times the dot product of each row with its partner, (n,).

        Partners are rows, or how many rows further on they are (mod n).
        """

    def contrast(self, lse: Array, positive: Array) -> Array:
        """-log(exp(positive) / (exp(positive) + exp(lse))) = softplus(lse - positive)."""

    def partner_contrast(
        self,
        lse: Array,
        rows: Array,
        partners: Array | int,
        scale: Any,
        within: Array | None = None,
    ) -> Array:
        """`contrast(lse, partner_logits(rows, partners, scale))`, in one step.

        Where the positives are `within` the log-sum-exp already it is lse - logit, no softplus.
        """

    def logaddexp(self, a: Array, b: Array) -> Array:
        """log(exp(a) + exp(b))."""

    def own_logsumexp(self, queries: Array, keys: Array, scale: Any) -> Array:
        """Log-sum-exp of `scale` times the dot products of query i with keys[i], (n, m, d)."""

    def half(self, x: Array, index: int) -> Array:
        """The first or the second half of a vector."""

    def reduce(self, rows: Array, reduction: str, dtype: Any) -> Array:
        """The mean, the sum, or for "none" the rows themselves, in a dtype."""

    def pair_logsumexp(
        self,
        queries: Array,
        keys: Array | None,
        scale: Any,
        query_ids: Array | int,
        key_ids: Array | int | None,
        *,
        unit: bool,
        columns: bool = False,
        implementation: str | None = None,
    ) -> Array:
        """Log-sum-exp of `scale * queries @ keys.T` along rows, then down `columns`: (n + m,).

        Only pairs with `query_ids[i] != key_ids[k]` count; a row without any gives -inf. An integer
        P as both ids stands for 0 ... P-1 over and over, so that no index array is built.
        `keys=None` means the queries themselves: each tile then serves its rows and its columns.
        `unit` promises rows of length at most 1, so that |score| <= scale and no running maximum
        may be needed.
        """


def nt_xent(
    ops: Ops,
    views: Sequence[Array],
    temperature: Any,
    ids: Array | None,
    denominator: str,
    normalize: bool,
    reduction: str,
    implementation: str | None,
) -> Array:
    """`nt_xent` of every backend: check, stack, normalise, the formula, reduce."""
    _spec.check_nt_xent(ops, views, temperature, ids, denominator, reduction, implementation)
    images = ops.count(views[0])
    row_ids = images if ids is None else ops.repeat(ids, len(views))

    def loss(views: Sequence[Array], temperature: Any, implementation: str | None) -> Array:
        z = (ops.stack_unit if normalize else ops.stack)(*views)
        scale = ops.inverse(temperature, z)
        lse = ops.pair_logsumexp(
            z, None, scale, row_ids, None, unit=normalize, implementation=implementation
        )
        shifts = [images * view for view in range(1, len(views))]
        rows = row_losses(ops, z, lse, scale, shifts, denominator)
        return ops.reduce(rows, reduction, z.dtype)

    return ops.evaluate(loss, views, temperature, implementation)


def row_losses(
    ops: Ops, z: Array, lse: Array, scale: Any, shifts: Sequence[Any], denominator: str
) -> Array:
    """The loss of every row, from its negatives' log-sum-exp and its positives, `shifts` away."""
    if denominator == "one_positive" or (denominator == "all" and len(shifts) == 1):
        return mean_of([ops.partner_contrast(lse, z, shift, scale) for shift in shifts])
    positives = [ops.partner_logits(z, shift, scale) for shift in shifts]
    if denominator == "negatives":  # decoupled, arXiv 2110.06848
        # Where ids turn out to be all equal L is -inf: NaN, and a gradient of NaN.
        return lse - mean_of(positives) * (1 + (lse - lse))
    # arXiv 2004.11362, eq. 2: log(exp(L) + sum_p exp(p)) - mean p, in two terms, neither negative
    lse_positives = reduce(ops.logaddexp, positives)
    spread = mean_of([lse_positives - positive for positive in positives])
    return ops.contrast(lse, lse_positives) + spread


def sup_con(
    ops: Ops,
    z: Array,
    labels: Array,
    temperature: Any,
    normalize: bool,
    reduction: str,
    implementation: str | None,
) -> Array:
    """`sup_con` of every backend.

    Sum_p s_ip over the other rows of a class is z_i . (C - z_i), C the sum of the class: O(n d). A
    row with one positive alone may have a loss far below 1, so that its positive is left out of L_i
    and the loss is NT-Xent's; with more than one it is at least log 2 (docs/adr/0007).
    """
    _spec.check_sup_con(ops, z, labels, temperature, reduction, implementation)
    classes = ops.classes(labels)
    anchors = classes.anchors

    def loss(arrays: Sequence[Array], temperature: Any, implementation: str | None) -> Array:
        z = (ops.stack_unit if normalize else ops.stack)(*arrays)
        scale = ops.inverse(temperature, z)
        lse = ops.pair_logsumexp(
            z, None, scale, classes.ids, None, unit=normalize, implementation=implementation
        )
        positives = ops.positive_means(z, classes)
        rows = ops.partner_contrast(lse, z, positives, scale, classes.within) * anchors
        if reduction != "mean":
            return ops.reduce(rows, reduction, z.dtype)
        # Where labels are known too late to refuse them, and no two are alike: 0 / 0 is NaN.
        total = ops.reduce(anchors, "sum", anchors.dtype)
        return ops.reduce(ops.reduce(rows, "sum", rows.dtype) / total, "none", z.dtype)

    return ops.evaluate(loss, [z], temperature, implementation)


def info_nce(
    ops: Ops,
    query: Array,
    key: Array,
    negatives: Array | None,
    temperature: Any,
    ids: Array | None,
    symmetric: bool,
    normalize: bool,
    reduction: str,
    implementation: str | None,
) -> Array:
    """`info_nce` of every backend; both directions come from one pass over the tiles."""
    _spec.check_info_nce(ops, query, key, negatives, temperature, ids, reduction, implementation)
    pairs = ops.count(query)
    if ids is not None:  # as they are now: a buffer may be filled anew before the backward pass
        ids = ops.repeat(ids, 1)
    pair_ids = pairs if ids is None else ids[:pairs]

    def loss(arrays: Sequence[Array], temperature: Any, implementation: str | None) -> Array:
        query, key, *more = map(ops.stack_unit if normalize else ops.stack, arrays)
        scale = ops.inverse(temperature, query)
        hot = partial(ops.pair_logsumexp, unit=normalize, implementation=implementation)
        lse = hot(query, key, scale, pair_ids, pair_ids, columns=symmetric)
        directions = [ops.half(lse, 0), ops.half(lse, 1)] if symmetric else [lse]
        for rows in more:
            if len(rows.shape) == 3:
                far = ops.own_logsumexp(query, rows, scale)
            elif ids is None:  # a queue has nothing to do with the batch: no pair is left out
                far = hot(query, rows, scale, ops.one_id(query, 0), ops.one_id(rows, 1))
            else:
                far = hot(query, rows, scale, pair_ids, ids[pairs:])
            directions[0] = ops.logaddexp(directions[0], far)
        losses = [ops.partner_contrast(lse, query, key, scale) for lse in directions]
        return ops.reduce(mean_of(losses), reduction, query.dtype)

    arrays = [query, key] if negatives is None else [query, key, negatives]
    return ops.evaluate(loss, arrays, temperature, implementation)


def mean_of(terms: Sequence[Array]) -> Array:
    """The mean of a few arrays, elementwise."""
    return terms[0] if len(terms) == 1 else reduce(add, terms) * (1 / len(terms))
