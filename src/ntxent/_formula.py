"""The formula, once, for every backend.

Rows. V views of the same N images, stacked: z = [z1; z2; ...; zV], n = VN rows of unit length; s_ik
= z_i . z_k, temperature tau, `scale` = 1/tau. Row i's positives are the other views of its image,
rows i + N, i + 2N, ... (mod n). Its negatives N(i) are the rows whose id differs from its own; the
id is the image's number unless the user gives one.

    L_i = log sum_{k in N(i)} exp(s_ik / tau)       over the negatives, O(n^2 d)
    l_i = softplus(L_i - s_ij / tau)                NT-Xent (arXiv 2002.05709, eq. 1)

The second line is -log(exp(s_ij/tau) / (exp(s_ij/tau) + exp(L_i))), divided through. Written so it
keeps its digits when l_i is small, where `logsumexp(everything) - positive` has lost them all
(docs/numerics.md).

`pair_logsumexp` is the one expensive operation, and each backend makes that one fast; everything on
this page is O(n d) and differentiated by the backend. All checks are in `_spec`, and nothing here
knows a framework: `ops` is a backend's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from typing import Any, Protocol

from ntxent import _spec

Array = Any


class Ops(_spec.ArrayKind, Protocol):
    """The names over which the family is written; other arithmetic is the arrays' own `+ - *`."""

    def evaluate(
        self,
        loss: Callable[[Sequence[Array], Any, str | None], Array],
        views: Sequence[Array],
        temperature: Any,
        implementation: str | None,
    ) -> Array:
        """`loss(views, temperature, implementation)` in the backend's way to differentiate it."""

    def count(self, rows: Array) -> Any:
        """How many rows: an int, or a 0-d array where it isn't known yet."""

    def stack(self, *views: Array) -> Array:
        """The rows of all views, (V N, d), in float32 or wider."""

    def stack_unit(self, *views: Array) -> Array:
        """The same, each row divided by its length; a zero row stays zero."""

    def inverse(self, temperature: Any, like: Array) -> Any:
        """1/temperature; of an array in `like`'s dtype, NaN if it is not positive and finite."""

    def repeat(self, ids: Array, times: int) -> Array:
        """The ids over and over, once a view."""

    def all_equal(self, ids: Array) -> bool:
        """Whether all ids are one and the same; False when it can't be known yet."""

    def partner_logits(self, rows: Array, shift: int, scale: Any) -> Array:
        """`scale` times the dot product of each row i with row i + shift (mod n), (n,)."""

    def contrast(self, lse: Array, positive: Array) -> Array:
        """-log(exp(positive) / (exp(positive) + exp(lse))) = softplus(lse - positive)."""

    def partner_contrast(self, lse: Array, rows: Array, shift: int, scale: Any) -> Array:
        """`contrast(lse, partner_logits(rows, shift, scale))`, in one step."""

    def logaddexp(self, a: Array, b: Array) -> Array:
        """log(exp(a) + exp(b))."""

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
    if denominator == "negatives" and ids is not None and ops.all_equal(ids):
        raise ValueError(_spec.NO_NEGATIVES.format("ids that are all equal"))
    images = ops.count(views[0])
    row_ids = images if ids is None else ops.repeat(ids, len(views))

    def loss(views: Sequence[Array], temperature: Any, implementation: str | None) -> Array:
        z = ops.stack_unit(*views) if normalize else ops.stack(*views)
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


def mean_of(terms: Sequence[Array]) -> Array:
    """The mean of a few arrays, elementwise."""
    return terms[0] if len(terms) == 1 else reduce(add, terms) * (1 / len(terms))
