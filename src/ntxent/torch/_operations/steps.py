"""The steps of a loss: in closed form, or under autograd for `dense` and while something traces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ntxent._closed_form.operations import ClosedOps
from ntxent._labels import Classes, classes
from ntxent.torch._pairs.logsumexp import closed_pairs, pair_logsumexp
from ntxent.torch._pairs.threads import hush, most_workers
from ntxent.torch._pairs.tiled import TILE
from ntxent.torch._transforms import operators
from ntxent.torch._transforms.calls import class_sums

# n d times workers up to which the steps between tiles have one thread. On two cores, hushed and
# not: at 2^19 21.3 and 23.7 ms, at 2^21 as fast (beside two busy processes 368 and 449 ms), at 2^23
# 322 and 287 ms.
HUSHED = 2**21

# A positive is a few n-vectors of work, and the error of its float32 sum, divided by tau, would be
# the largest error of the loss (docs/numerics.md): dots and all row losses are in float64.


class FormulaOps(ClosedOps):
    """`_protocol.Ops` for tensors without its checks, and what the closed form asks."""

    pair_logsumexp = staticmethod(pair_logsumexp)
    closed_pairs = staticmethod(closed_pairs)
    class_sums = staticmethod(class_sums)
    as_float = staticmethod(Tensor.double)  # of counts

    def cast(self, array: Tensor, dtype: torch.dtype) -> Tensor:
        return array if array.dtype == dtype else array.type(dtype)  # half a microsecond below `to`

    def expect(self, arrays: Sequence[Tensor], sides: int) -> None:
        rows, first = sum(x.shape[0] for x in arrays), arrays[0]
        if rows // sides <= TILE:
            return
        workers = most_workers(first)
        if workers > 1 and rows * first.shape[1] * workers <= HUSHED:
            hush()

    def count(self, rows: Tensor) -> int:
        return rows.shape[0]  # len() of it would be a constant to torch.export

    def stack_unit(self, *arrays: Tensor) -> Tensor:
        unit: Tensor = ClosedOps.unit_rows(self, arrays)[0]  # not in place: autograd looks on
        return unit

    def unit_rows(self, arrays: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        if arrays[0].dtype != torch.float32:
            return super().unit_rows(arrays)
        # The same bits by four operations, which make no float64 copy of the rows.
        rows = torch.cat(tuple(arrays))
        norm = torch.linalg.vector_norm(rows, dim=-1, keepdim=True, dtype=torch.float64)
        length = torch.threshold_(norm, 0.0, math.inf)
        return rows.div_(length), length

    def through_unit(self, grad: Tensor, unit: Tensor, lengths: Tensor) -> Tensor:
        dots = (grad * unit).sum(-1, keepdim=True)
        # Divided by float64, n = 8192 rows would take 1.0 ms in place of 0.15.
        lengths = self.cast(lengths, grad.dtype)
        return grad.addcmul_(dots, unit, value=-1).div_(lengths)

    def less_product(self, grad: Tensor, column: Tensor, rows: Tensor, scale: Any) -> Tensor:
        if isinstance(scale, Tensor):
            return grad.addcmul_(column * scale, rows, value=-1)
        return grad.addcmul_(column, rows, value=-scale)

    def parts(self, rows: Tensor, count: int) -> Sequence[Tensor]:
        """The rows of each of so many stacked arrays."""
        return (rows,) if count == 1 else rows.chunk(count)

    def sigmoid(self, x: Tensor, softplus: Tensor) -> Tensor:
        """The derivative of softplus."""
        del softplus
        return torch.sigmoid(x)

    def stacked_float64(self, arrays: Sequence[Tensor]) -> Tensor:
        return torch.cat(tuple(arrays)).double()

    def lengths(self, rows: Tensor) -> Tensor:
        # Of squares, as vector_norm has no second derivative at a zero row.
        return torch.threshold(rows.square().sum(-1, keepdim=True), 0.0, math.inf).sqrt()

    def largest(self, rows: Tensor) -> Tensor:
        largest = rows.detach().abs().amax(-1, keepdim=True)
        return largest.masked_fill(largest == 0, 1.0)

    def minus_product(self, a: Tensor, b: Tensor, c: float | Tensor) -> Tensor:
        if isinstance(c, Tensor):
            return torch.addcmul(a, b, c, value=-1)
        return torch.sub(a, b, alpha=c)

    def column(self, x: Tensor) -> Tensor:
        return x.unsqueeze(1)  # indexing with None takes twice as long

    def row_dot(self, a: Tensor, b: Tensor) -> Any:
        return (a * b).sum(1, dtype=torch.float64)

    def classes(self, labels: Tensor, across: Any) -> Classes:
        labels = labels.long()
        if across is not None:
            return Classes(*operators.process_classes(labels, *across))
        index = torch.arange(labels.shape[0], device=labels.device)
        return classes(torch, labels, labels.sort().values, self.as_float, index)

    def positive_means(self, rows: Tensor, classes: Classes, across: Any) -> Tensor:
        means: Tensor = self.class_means(rows, classes, across)[0]
        return means

    def partner_logits(self, rows: Tensor, partners: Tensor | int, scale: Any) -> Tensor:
        logits: Tensor = self.scaled(self.partner_dots(rows, partners), scale)
        return logits

    def partner_dots(self, rows: Tensor, partners: Tensor | int) -> Any:
        """The dot product of each row with its partner."""
        others = partners if isinstance(partners, Tensor) else self.roll(rows, -partners)
        return self.row_dot(rows, others)

    def contrast(self, lse: Tensor, positive: Tensor) -> Tensor:
        return self.softplus(lse - positive)

    def softplus(self, x: Tensor) -> Tensor:
        # Past its default threshold of 20 softplus returns x itself, 1e-10 off in float64.
        return F.softplus(x, threshold=40.0)

    def partner_contrast(
        self,
        lse: Tensor,
        rows: Tensor,
        partners: Tensor | int,
        scale: Any,
        within: Tensor | None = None,
    ) -> Tensor:
        x = self.minus_product(lse, self.partner_dots(rows, partners), scale)
        loss = self.softplus(x)
        return loss if within is None else torch.where(within, x, loss)

    def logaddexp(self, a: Tensor, b: Tensor) -> Tensor:
        # Of nothing and nothing: no derivative, where exp(-inf + inf) would be NaN.
        nothing = (a == -math.inf) & (b == -math.inf)
        y = torch.logaddexp(torch.where(nothing, 0.0, a), b)
        return torch.where(nothing, -math.inf, y)

    def own_logsumexp(self, queries: Tensor, keys: Tensor, scale: Any) -> Tensor:
        return self.logsumexp((keys @ queries[:, :, None])[:, :, 0] * scale)

    def logsumexp(self, scores: Tensor) -> Tensor:
        """Along the rows of a matrix."""
        return scores.logsumexp(1)

    def half(self, x: Tensor, index: int) -> Tensor:
        size = x.shape[0] // 2
        return x[index * size : (index + 1) * size]

    def or_one(self, count: Tensor) -> Tensor:
        return torch.threshold(count, 0.0, 1.0)

    def one_id(self, rows: Tensor, value: int) -> Tensor:
        return torch.full(rows.shape[:1], value, device=rows.device)

    def reduce(self, rows: Tensor, reduction: str, dtype: Any) -> Tensor:
        if reduction == "none":
            return self.cast(rows, dtype)
        # Added as they are, in float64, and rounded then.
        return self.cast(rows.mean() if reduction == "mean" else rows.sum(), dtype)
