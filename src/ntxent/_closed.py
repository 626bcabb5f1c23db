"""Every loss with its gradient in closed form, once, for NumPy and PyTorch.

A step is the row stage between two passes over the pairs (docs/formula.md):

    z = x / |x|                                   unit rows
    L_i = log sum_k exp(scale s_ik)               the hot operation, forward
    l, push, pull                                 `_row_stage`, from L and dots with positives
    dz_i = scale (sum_k W_ik z_k - pull_i z_j(i) - pull_j(i) z_j(i))      W: the hot one, backward
    dx = (dz - (dz . z) z) / |x|

Every term has a z on either side, or a query and a key. So d loss / d scale is the sum of z . dz /
scale, and half of it where the rows are both.

A loss gives arrays and structure apart, so that PyTorch's autograd can own the arrays: no closure
here holds one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ntxent import _row_stage
from ntxent._classes import Classes
from ntxent._protocol import Across, Array

Pullback = Callable[[Any, Any], "list[Array | None]"]
Needs = Sequence[bool]  # which gradients are wanted: the temperature's, then each array's


class Closed(NamedTuple):
    """A loss, and `pullback(saved, upstream)`: gradients of the temperature and of the arrays.

    What is saved are nested tuples. Those of several arrays may be stacked: `counts` says how many
    arrays each gradient after the temperature's is for. One that isn't wanted may be None.
    """

    value: Array
    saved: Any = None
    pullback: Pullback | None = None
    counts: Sequence[int] = ()


class Call(NamedTuple):
    """What is asked of a loss, whichever it is, and the backend that carries it out."""

    ops: Any
    normalize: bool
    reduction: str
    implementation: Any
    across: Across | None
    needs: Needs

    @property
    def differentiated(self) -> bool:
        """Whether any gradient is wanted."""
        return any(self.needs)

    def rows(self, arrays: Sequence[Array]) -> tuple[Array, Array | None]:
        """All rows, in float32 or wider, and their lengths if they became unit rows."""
        if self.normalize:
            unit: tuple[Array, Array] = self.ops.unit_rows(arrays)
            return unit
        return self.ops.stack(*arrays), None

    def pairs(self, query_ids: Any, key_ids: Any = None, columns: bool = False) -> Any:
        """The hot operation."""
        return self.ops.closed_pairs(
            query_ids, key_ids, self.normalize, columns, self.implementation, self.across
        )

    def reduced(self, losses: Array, dtype: Any) -> tuple[Array, Any]:
        """The losses reduced, and what its upstream is multiplied by to be that of each.

        Of two directions, the rows of a matrix, the mean.
        """
        directions = losses.shape[0] if len(losses.shape) == 2 else 1
        size = losses.shape[-1]
        if self.reduction == "none":
            rows = losses if directions == 1 else losses.mean(0)
            return self.ops.cast(rows, dtype), 1 / directions
        if self.reduction == "mean" and self.across is None:
            return losses.mean(dtype=dtype), 1 / (size * directions)
        weight: Any = 1 / directions
        if self.across is not None:  # so that the mean over processes is the whole batch's
            mean = self.reduction == "mean"
            weight *= 1 / self.across.mean(size) if mean else self.across.processes
        return self.ops.cast(losses.sum() * weight, dtype), weight

    def to_inputs(self, grad: Array, rows: Array, lengths: Array | None) -> tuple[Array, Any]:
        """The gradient of rows through their normalisation, and z . dz if that is at hand."""
        if lengths is None:
            return grad, (grad * rows).sum(-1) if self.needs[0] else None
        found: tuple[Array, Array] = self.ops.through_unit(grad, rows, lengths)
        return found

    def by_temperature(self, dots: Any, scale: Any, sides: int = 1) -> Any:
        """From z . dz: d loss / d temperature = -scale^2 d loss / d scale."""
        return dots.sum() * (-scale / sides) if self.needs[0] else None


def nt_xent(
    call: Call,
    row_ids: Array | int,
    shifts: Sequence[int],
    denominator: str,
    views: Sequence[Array],
    temperature: Any,
) -> Closed:
    """NT-Xent; the positives of a row are `shifts` further on."""
    ops = call.ops
    z, lengths = call.rows(views)
    scale = ops.inverse(temperature, z)
    pairs = call.pairs(row_ids)
    (lse,), kept = pairs.forward(z, None, scale, call.differentiated)
    partners = [ops.roll(z, -shift) for shift in shifts]
    dots = [ops.row_dot(z, partner) for partner in partners]
    stage = _row_stage.stage_of(ops, lse, dots, scale, denominator, call.differentiated)
    value, factor = call.reduced(stage.losses, z.dtype)
    if not call.differentiated:
        return Closed(value)

    def pullback(saved: Any, upstream: Any) -> list[Array | None]:
        z, lengths, scale, partners, push, pulls, factor, kept = saved
        g = upstream * factor
        push = push * g
        pulls = [push] if pulls is None else [pull * g for pull in pulls]
        grad = None
        for partner, shift, pull in zip(partners, shifts, pulls, strict=True):
            part = of_positives(ops, z, partner, shift, pull, scale)
            grad = part if grad is None else grad + part
        pairs.backward(z, None, scale, kept, [push], grad, None)
        grad, dots = call.to_inputs(grad, z, lengths)
        return [call.by_temperature(dots, scale, sides=2), grad]

    saved = z, lengths, scale, partners, stage.push, stage.pulls, factor, kept
    return Closed(value, saved, pullback, (len(views),))


def of_positives(ops: Any, z: Array, partner: Array, shift: int, pull: Any, scale: Any) -> Array:
    """The gradient of -scale * sum pull_i z_i . z_(i + shift), in new memory."""
    if 2 * shift == z.shape[0]:  # rows i + shift and i - shift are one, the partner
        return ops.column((pull + ops.roll(pull, shift)) * -scale) * partner
    column = ops.column(pull * -scale)
    return column * partner + ops.roll(column * z, shift)


def sup_con(call: Call, classes: Classes, arrays: Sequence[Array], temperature: Any) -> Closed:
    """SupCon; the positive of a row is the mean of the others of its class."""
    ops, across, reduction = call.ops, call.across, call.reduction
    z, lengths = call.rows(arrays)
    scale = ops.inverse(temperature, z)
    pairs = call.pairs(classes.ids)
    (lse,), kept = pairs.forward(z, None, scale, call.differentiated)
    means, others = ops.class_means(z, classes, across)
    dot = ops.row_dot(z, means)
    stage = _row_stage.contrast(ops, lse, dot, scale, call.differentiated, classes.within)
    share = classes.anchors
    if reduction == "mean":
        total = share.sum()
        # Without any anchor 0 / 1, not 0 / 0: a step on such a batch leaves all weights alone.
        share = share / ops.or_one(total if across is None else across.mean(total))
    elif reduction == "sum" and across is not None:
        share = share * across.processes
    losses = stage.losses * share
    value = ops.cast(losses if reduction == "none" else losses.sum(), z.dtype)
    if not call.differentiated:
        return Closed(value)
    groups = classes.groups

    def pullback(saved: Any, upstream: Any) -> list[Array | None]:
        z, lengths, scale, means, others, push, share, kept = saved
        push = push * (share * upstream)
        column = ops.column(push * -scale)
        # sum_i of p_i, the mean of the others: each of them has its part from every i
        part = z * (column / others)
        grad = column * means + (ops.class_sums(part, groups, across) - part)
        grad = ops.cast(grad, z.dtype)
        pairs.backward(z, None, scale, kept, [ops.cast(push, z.dtype)], grad, None)
        grad, dots = call.to_inputs(grad, z, lengths)
        return [call.by_temperature(dots, scale, sides=2), grad]

    saved = z, lengths, scale, means, others, stage.push, share, kept
    return Closed(value, saved, pullback, (1,))
