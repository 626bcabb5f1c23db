"""Every loss with its gradient in closed form, once, for NumPy and PyTorch.

A step is the row stage between two passes over the pairs (docs/formula.md):

    z = x / |x|                                   unit rows
    L_i = log sum_k exp(scale s_ik)               the hot operation, forward
    l, push, pull                                 `row_stage`, from L and dots with positives
    dz_i = scale (sum_k W_ik z_k - pull_i z_j(i) - pull_j(i) z_j(i))      W: the hot one, backward
    dx = (dz - (dz . z) z) / |x|

The products of the weights are summed before the positives' terms join them, which are larger and
would take their last digits.

A loss gives its arrays apart from the function that uses them, so that PyTorch's autograd can free
and offload them: no closure here holds an array, but for ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ntxent._closed_form import row_stage
from ntxent._labels import Classes
from ntxent._protocol import Array

Pullback = Callable[[Any, Any], "list[Array | None]"]
Needs = Sequence[bool]  # which gradients are wanted: the temperature's, then each array's


class Closed(NamedTuple):
    """A loss, and `pullback(saved, upstream)`: gradients of the temperature and of the arrays.

    What is saved are nested tuples. Gradients of several arrays may be stacked: `counts` says how
    many arrays each one after the temperature's is for. One that isn't wanted may be None.
    """

    value: Array
    saved: Any = None
    pullback: Pullback | None = None
    counts: Sequence[int] = ()


class Call(NamedTuple):
    """What is asked of a loss, whichever it is, and the backend that carries it out."""

    ops: Any
    options: Any  # `_spec.Options`, whose temperature may be left out
    needs: Needs

    @property
    def differentiated(self) -> bool:
        """Whether any gradient is wanted."""
        return any(self.needs)

    def rows(self, arrays: Sequence[Array], sides: int = 1) -> tuple[Array, Array | None]:
        """All rows, in float32 or wider, and their lengths if they became unit rows.

        They are one side of the pairs, or two.
        """
        if len(arrays[0].shape) == 2:
            self.ops.expect(arrays, sides)
        if self.options.normalize:
            unit: tuple[Array, Array] = self.ops.unit_rows(arrays)
            return unit
        return self.ops.stack(*arrays), None

    def pairs(self, query_ids: Any, key_ids: Any = None, columns: bool = False) -> Any:
        """The hot operation."""
        return self.ops.closed_pairs(query_ids, key_ids, columns, self.options)

    def reduced(self, losses: Array, dtype: Any) -> tuple[Array, Any]:
        """The losses reduced, and what its upstream is multiplied by to be that of each.

        Of two directions, the rows of a matrix, the mean.
        """
        reduction, across = self.options.reduction, self.options.across
        directions = losses.shape[0] if len(losses.shape) == 2 else 1
        size = losses.shape[-1]
        if reduction == "none":
            rows = losses if directions == 1 else losses.mean(0)
            return self.ops.cast(rows, dtype), 1 / directions
        if reduction == "mean" and across is None:
            # Added in float64: rounded first, losses of one size would be off by 1e-7 all together.
            return self.ops.cast(losses.mean(), dtype), 1 / (size * directions)
        weight: Any = 1 / directions
        if across is not None:  # so that the mean over processes is the whole batch's
            mean = reduction == "mean"
            weight *= 1 / across.mean(size) if mean else across.processes
        return self.ops.cast(losses.sum() * weight, dtype), weight

    def to_inputs(self, grad: Array, rows: Array, lengths: Array | None) -> Array:
        """The gradient of rows, through their normalisation if they had one."""
        return grad if lengths is None else self.ops.through_unit(grad, rows, lengths)

    def by_temperature(
        self,
        rows: Array,
        grad: Array,
        sides: int,
        pulls: Sequence[Array],
        dots: Sequence[Array],
        scale: Any,
    ) -> Any:
        """d loss / d temperature = -scale^2 d loss / d scale, if it is wanted.

        `grad` is of the log-sum-exps alone. Each of their terms is scale times a row by another, so
        that rows . grad / scale is their part of d loss / d scale, once for each of the `sides`
        that are these rows. The positives' part is in float64.
        """
        if not self.needs[0]:
            return None
        both = zip(pulls, dots, strict=True)
        positives = sum((pull * self.ops.scaled(dot, 1.0)).sum() for pull, dot in both)
        return (positives * scale - (rows * grad).sum() / sides) * scale


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
    first, *others = shifts
    partner = ops.roll(z, -first)
    dots = [ops.row_dot(z, partner), *(ops.row_dot(z, ops.roll(z, -shift)) for shift in others)]
    stage = row_stage.stage_of(ops, lse, dots, scale, denominator, call.differentiated)
    value, factor = call.reduced(stage.losses, z.dtype)
    if not call.differentiated:
        return Closed(value)

    def pullback(saved: Any, upstream: Any) -> list[Array | None]:
        z, lengths, scale, partner, dots, push, pulls, factor, kept = saved
        g = upstream * factor
        wide = [push * g] if len(pulls) == 1 else [pull * g for pull in pulls]
        weights = [ops.cast(pull, z.dtype) for pull in wide]
        # With one positive push and pull are one.
        push = weights[0] if len(pulls) == 1 else ops.cast(push * g, z.dtype)
        grad, _ = pairs.backward(z, None, scale, kept, [push], by_keys=False)
        by_temperature = call.by_temperature(z, grad, 2, wide, dots, scale)
        for shift, pull in zip(shifts, weights, strict=True):
            positives = partner if shift == first else ops.roll(z, -shift)
            grad = with_positives(ops, grad, z, positives, shift, pull, scale)
        return [by_temperature, call.to_inputs(grad, z, lengths)]

    saved = z, lengths, scale, partner, dots, stage.push, stage.pulls, factor, kept
    return Closed(value, saved, pullback, (len(views),))


def with_positives(
    ops: Any, grad: Array, z: Array, partner: Array, shift: int, pull: Array, scale: Any
) -> Array:
    """Less the gradient of scale * sum pull_i z_i . z_(i + shift), in the memory of `grad`."""
    if 2 * shift == z.shape[0]:  # rows i + shift and i - shift are one, the partner
        return ops.less_product(grad, ops.column(pull + ops.roll(pull, shift)), partner, scale)
    column = ops.column(pull)
    grad = ops.less_product(grad, column, partner, scale)
    return ops.less_product(grad, ops.roll(column, shift), ops.roll(z, shift), scale)


def sup_con(call: Call, classes: Classes, arrays: Sequence[Array], temperature: Any) -> Closed:
    """SupCon; the positive of a row is the mean of the others of its class."""
    ops, across = call.ops, call.options.across
    z, lengths = call.rows(arrays)
    scale = ops.inverse(temperature, z)
    pairs = call.pairs(classes.ids)
    (lse,), kept = pairs.forward(z, None, scale, call.differentiated)
    means, others = ops.class_means(z, classes, across)
    dot = ops.row_dot(z, means)
    stage = row_stage.contrast(ops, lse, dot, scale, call.differentiated, classes.within)
    share = share_of(call, classes.anchors)
    losses = stage.losses * share
    value = ops.cast(losses if call.options.reduction == "none" else losses.sum(), z.dtype)
    if not call.differentiated:
        return Closed(value)

    def pullback(saved: Any, upstream: Any) -> list[Array | None]:
        z, lengths, scale, means, others, dot, push, share, groups, kept = saved
        push = push * (share * upstream)
        weight = ops.cast(push, z.dtype)
        grad, _ = pairs.backward(z, None, scale, kept, [weight], by_keys=False)
        by_temperature = call.by_temperature(z, grad, 2, [push], [dot], scale)
        grad = ops.less_product(grad, ops.column(weight), means, scale)
        # Each mean is of the others of a class: they have their part of it in turn.
        part = z * (ops.column(push * scale) / others)
        grad -= ops.cast(ops.class_sums(part, groups, across) - part, z.dtype)
        return [by_temperature, call.to_inputs(grad, z, lengths)]

    saved = z, lengths, scale, means, others, dot, stage.push, share, classes.groups, kept
    return Closed(value, saved, pullback, (1,))


def share_of(call: Call, anchors: Array) -> Array:
    """What each row's loss has of the reduced one: only anchors have a positive."""
    ops, across = call.ops, call.options.across
    if call.options.reduction == "mean":
        total = anchors.sum()
        # Without any anchor 0 / 1, not 0 / 0: a step on such a batch leaves all weights alone.
        return anchors / ops.or_one(total if across is None else across.mean(total))
    if call.options.reduction == "sum" and across is not None:
        return anchors * across.processes
    return anchors
