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

A batch may be spread over processes, `across` which every row meets the rows of all: L_i is then
over all of them, and so is a class. Positives of other losses are at hand, and everything else is
a row's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

from ntxent import _spec
from ntxent._closed_form import losses as closed_form
from ntxent._closed_form import two_towers
from ntxent._closed_form.losses import Call, Closed
from ntxent._protocol import Array, Ops
from ntxent._spec import Options


def nt_xent(
    ops: Ops, options: Options, views: Sequence[Array], ids: Array | None, denominator: str
) -> Array:
    """`nt_xent` of every backend: check, stack, normalise, the formula, reduce."""
    options = options.checked(_spec.check_nt_xent, ops, views, ids, denominator)
    images = ops.count(views[0])
    if ids is None and options.across is not None:
        ids = options.across.row_ids(views[0])
    row_ids = images if ids is None else ops.repeat(ids, len(views))
    shifts = [images * view for view in range(1, len(views))]

    def loss(ops: Ops, views: Sequence[Array], options: Options) -> Array:
        z = stacked(ops, views, options)
        scale = ops.inverse(options.temperature, z)
        lse = ops.pair_logsumexp(z, None, scale, row_ids, None, options)
        rows = row_losses(ops, z, lse, scale, shifts, denominator)
        return reduced(ops, rows, options, z.dtype)

    def closed(ops: Any, views: Sequence[Array], temperature: Any, *call: Any) -> Closed:
        given = row_ids, shifts, denominator, views, temperature
        return closed_form.nt_xent(Call(ops, *call), *given)

    return ops.evaluate(loss, closed, views, options)


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


def sup_con(ops: Ops, options: Options, z: Array, labels: Array) -> Array:
    """`sup_con` of every backend.

    Sum_p s_ip over the other rows of a class is z_i . (C - z_i), C the sum of the class: O(n d). A
    row with one positive alone may have a loss far below 1, so that its positive is left out of L_i
    and the loss is NT-Xent's; with more than one it is at least log 2 (docs/adr/0007).
    """
    options = options.checked(_spec.check_sup_con, ops, z, labels)
    across = options.across
    labels = ops.repeat(labels, 1)  # as they are now: a buffer may be filled anew

    def loss(ops: Ops, arrays: Sequence[Array], options: Options) -> Array:
        classes = ops.classes(labels, across)
        anchors = classes.anchors
        z = stacked(ops, arrays, options)
        scale = ops.inverse(options.temperature, z)
        lse = ops.pair_logsumexp(z, None, scale, classes.ids, None, options)
        positives = ops.positive_means(z, classes, across)
        rows = ops.partner_contrast(lse, z, positives, scale, classes.within) * anchors
        if options.reduction != "mean":
            return reduced(ops, rows, options, z.dtype)
        total = ops.reduce(anchors, "sum", anchors.dtype)
        if across is not None:
            total = across.mean(total)
        # Without any anchor 0 / 1, not 0 / 0: a step on such a batch leaves all weights alone.
        mean = ops.reduce(rows, "sum", rows.dtype) / ops.or_one(total)
        return ops.reduce(mean, "none", z.dtype)

    def closed(ops: Any, arrays: Sequence[Array], temperature: Any, *call: Any) -> Closed:
        classes = ops.classes(labels, across)
        return closed_form.sup_con(Call(ops, *call), classes, arrays, temperature)

    return ops.evaluate(loss, closed, [z], options)


def info_nce(
    ops: Ops,
    options: Options,
    query: Array,
    key: Array,
    negatives: Array | None,
    ids: Array | None,
    symmetric: bool,
) -> Array:
    """`info_nce` of every backend; both directions come from one pass over the tiles."""
    options = options.checked(_spec.check_info_nce, ops, query, key, negatives, ids, symmetric)
    pairs = ops.count(query)
    if ids is not None:  # as they are now: a buffer may be filled anew before the backward pass
        ids = ops.repeat(ids, 1)
    pair_ids = pairs if ids is None else ids[:pairs]
    shared = negatives is not None and len(negatives.shape) == 2
    far_ids = ids[pairs:] if ids is not None and shared else None
    if ids is None and options.across is not None:
        pair_ids = options.across.row_ids(query)

    def loss(ops: Ops, arrays: Sequence[Array], options: Options) -> Array:
        query, key, *more = (stacked(ops, [array], options) for array in arrays)
        scale = ops.inverse(options.temperature, query)
        lse = ops.pair_logsumexp(query, key, scale, pair_ids, pair_ids, options, columns=symmetric)
        directions = [ops.half(lse, 0), ops.half(lse, 1)] if symmetric else [lse]
        for rows in more:
            far = far_logsumexp(ops, query, rows, scale, pair_ids, far_ids, options)
            directions[0] = ops.logaddexp(directions[0], far)
        losses = [ops.partner_contrast(lse, query, key, scale) for lse in directions]
        return reduced(ops, mean_of(losses), options, query.dtype)

    def closed(ops: Any, arrays: Sequence[Array], temperature: Any, *call: Any) -> Closed:
        given = pair_ids, far_ids, symmetric, arrays, temperature
        return two_towers.info_nce(Call(ops, *call), *given)

    arrays = [query, key] if negatives is None else [query, key, negatives]
    return ops.evaluate(loss, closed, arrays, options)


def far_logsumexp(
    ops: Ops,
    query: Array,
    negatives: Array,
    scale: Any,
    pair_ids: Array | int,
    far_ids: Array | None,
    options: Options,
) -> Array:
    """Of the negatives that are nobody's partner: of each query's own, or shared by all."""
    if len(negatives.shape) == 3:
        return ops.own_logsumexp(query, negatives, scale)
    if far_ids is None:  # a queue has nothing to do with the batch: no pair is left out
        pair_ids, far_ids = ops.one_id(query, 0), ops.one_id(negatives, 1)
    return ops.pair_logsumexp(query, negatives, scale, pair_ids, far_ids, options)


def stacked(ops: Ops, arrays: Sequence[Array], options: Options) -> Array:
    """All rows, of unit length where they are normalised."""
    return (ops.stack_unit if options.normalize else ops.stack)(*arrays)


def mean_of(terms: Sequence[Array]) -> Array:
    """The mean of a few arrays, elementwise."""
    return terms[0] if len(terms) == 1 else reduce(add, terms) * (1 / len(terms))


def reduced(ops: Ops, rows: Array, options: Options, dtype: Any) -> Array:
    """Reduced; a shard's mean or sum so that the mean over processes is the whole batch's."""
    across, reduction = options.across, options.reduction
    if across is None or reduction == "none":
        return ops.reduce(rows, reduction, dtype)
    weight = across.processes if reduction == "sum" else 1 / across.mean(ops.count(rows))
    return ops.reduce(ops.reduce(rows, "sum", rows.dtype) * weight, "none", dtype)
