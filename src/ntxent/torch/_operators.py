"""The hot operation as two operators of `torch.library`, opaque to tracers.

A tracer (`torch.compile`, `torch.export`, `torch.func`) sees one call with known shapes in place of
the tiles' loop, whose length it would otherwise learn by heart. They have no derivative of their
own: that is `_transforms.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ntxent._pairs import sides
from ntxent.torch import _implementations
from ntxent.torch._implementations import Job


@torch.library.custom_op("ntxent::pair_logsumexp", mutates_args=())
def pair_logsumexp(
    queries: Tensor,
    keys: Tensor | None,
    scale: Tensor,
    query_ids: Tensor | None,
    key_ids: Tensor | None,
    period: int,
    unit: bool,
    columns: bool,
    implementation: str,
) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of rows, then of columns, and what the backward pass divides by, alike."""
    job = Job(queries, keys, scale, ids(query_ids, period), ids(key_ids, period), unit, columns)
    value, divisors, _ = _implementations.forward(job, implementation, keep=False)
    row, column = divisors
    divisor = row if column is None else torch.cat((row, column))
    # An output must not be another one, nor be the same memory.
    return value, divisor.clone() if divisor.data_ptr() == value.data_ptr() else divisor


@pair_logsumexp.register_fake
def _(
    queries: Tensor,
    keys: Tensor | None,
    scale: Tensor,
    query_ids: Tensor | None,
    key_ids: Tensor | None,
    period: int,
    unit: bool,
    columns: bool,
    implementation: str,
) -> tuple[Tensor, Tensor]:
    size = queries.shape[0]
    if columns:
        size = size + (queries if keys is None else keys).shape[0]
    return queries.new_empty(size), queries.new_empty(size)
