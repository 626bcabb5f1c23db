"""The steps of a loss on a device without float64: pairs of float32 carry what that does elsewhere.

The error of a float32 dot product, divided by tau, would be the largest error of the loss
(docs/numerics.md). So numbers are split into a head with few digits and a tail: heads multiply and
add up without error, in whatever order, and tails are so small that their errors are. Heads are
constants to autograd, and derivatives are those of the tails.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ntxent._labels import Classes
from ntxent.torch._operations.steps import FormulaOps


class Pair(NamedTuple):
    """The sum of two float32 tensors, which isn't carried out."""

    head: Tensor
    tail: Tensor


class Float32Ops(FormulaOps):
    """`FormulaOps` with the same digits, by other means."""

    as_float = staticmethod(Tensor.float)

    def stack_unit(self, *arrays: Tensor) -> Tensor:
        return self.unit_rows(arrays)[0]

    def unit_rows(self, arrays: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Each row divided by its length: by a rounded one first, then by what that has left."""
        rows = self.stack(*arrays)
        # The largest entry becomes about 1, exactly: squares stay in range.
        exponent = exponents(rows.detach().abs().amax(-1, keepdim=True))
        rows = rows * torch.exp2(-exponent)
        length = self.lengths(rows)
        unit = rows / length
        constant = unit.detach()
        head, tail = self.row_dot(constant, constant)
        excess = (head - 1) + tail
        return unit - unit * (excess / 2).unsqueeze(-1), length * torch.exp2(exponent)

    def row_dot(self, a: Tensor, b: Tensor) -> Pair:
        """The dot product of each row of `a` with the same row of `b`.

        Products of two heads are multiples of 2^-22 and, for rows of length 1, their sums at most
        1: exact in float32. The rest is 2^-11 as large, and so is its error.
        """
        (a_head, a_tail), (b_head, b_tail) = split(a), split(b)
        return Pair((a_head * b_head).sum(-1), (a_head * b_tail + a_tail * b).sum(-1))

    def minus_product(self, a: Tensor, b: Any, c: float | Tensor) -> Tensor:
        """Of a `Pair` b."""
        head, tail = product(b, c)
        # The tail first: where the loss is small, the head is larger than `a`, and rounds once.
        return (a - tail) - head

    def scaled(self, dot: Any, scale: Any) -> Tensor:
        head, tail = product(dot, scale)
        return head + tail

    def class_means(self, rows: Tensor, classes: Classes, across: Any) -> tuple[Tensor, Tensor]:
        """So that a row can be taken off the sum: off by 2^-35 of the largest entry, not 2^-24."""
        others = self.column(self.or_one(classes.others))
        exponent = exponents(rows.detach().abs().amax())
        parts = split(rows * torch.exp2(-exponent))
        head, tail = (self.class_sums(part, classes.groups, across) - part for part in parts)
        return (head + tail) * torch.exp2(exponent) / others, others


def exponents(x: Tensor) -> Tensor:
    """Of powers of two next to x, neither of which nor their inverses are subnormal."""
    return x.log2().floor().clamp(-126, 126)


def split(x: Tensor) -> Pair:
    """A multiple of 2^-11, and what it lacks; numbers from 2 on, not of unit rows, stay whole."""
    head = torch.where(x.abs() < 2, torch.round(x * 2**11) / 2**11, x).detach()
    return Pair(head, x - head)


def product(dot: Pair, scale: Any) -> Pair:
    """The scale times a dot product of unit rows."""
    high, (head, tail) = leading(scale), dot
    coarse, fine = split(head)
    return Pair(high * coarse, high * fine + (scale - high) * head + scale * tail)


def leading(x: Any) -> Any:
    """The 12 leading bits of a float32 tensor, or of a number, as a constant."""
    if not isinstance(x, Tensor):
        shifted = x * (2**41 + 1)
        return shifted - (shifted - x)
    x = x.detach()
    shifted = x * (2**12 + 1)
    return shifted - (shifted - x)


FLOAT32 = Float32Ops(torch)
