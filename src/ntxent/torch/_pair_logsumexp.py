"""The hot operation in PyTorch, and which implementation serves.

`dense` (`_dense.py`) is the matrix form under plain autograd: O(n^2) memory.
`tiled` (`_tiled.py`) never holds the matrix: O(n d) memory and a bounded store of tiles. A batch of
one tile is served without the loop (`_matrix.py`).
`triton` (`_triton.py`) does the same on a CUDA GPU, where no tile leaves the chip.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from ntxent._pairs import scale_gradient, sides, two_sides
from ntxent._tape import Pullback, Rule, Traced
from ntxent.torch import _transforms
from ntxent.torch._dense import dense
from ntxent.torch._dense_across import dense_across
from ntxent.torch._exclusion import Ids
from ntxent.torch._implementations import Choice
from ntxent.torch._processes import Processes
from ntxent.torch._shards import serving_across
from ntxent.torch._tile import Pairs, joined


def pair_logsumexp(
    queries: Any,
    keys: Any | None,
    scale: Any,
    query_ids: Tensor | int,
    key_ids: Tensor | int | None,
    *,
    unit: bool,
    columns: bool = False,
    implementation: Choice | str | None = None,
    across: Any = None,
) -> Any:
    """See `ntxent._protocol.Ops.pair_logsumexp`."""
    choice = implementation if isinstance(implementation, Choice) else Choice(implementation)
    keys, key_ids = two_sides(queries, keys, query_ids, key_ids, columns)
    ids: Any = (query_ids, key_ids)
    if across is not None:  # backends of torch.distributed lack some of the short integers
        ids = tuple(None if x is None else x.long() for x in ids)
    if choice.name == "dense":
        matrix: Any = dense if across is None else partial(dense_across, across)
        lse: Tensor = matrix(queries, keys, scale, *ids, columns)
        return lse
    inputs = queries, keys, scale
    for x in inputs:
        if type(x) is Traced:
            rule = closed_form(ids, unit, columns, type(keys) is Traced, choice, across)
            return x.tape.apply(rule, inputs)
    if _transforms.active():
        return _transforms.pair_logsumexp(*inputs, ids, unit, columns, choice, across)
    pairs = Pairs(*inputs, ids, unit, columns, choice.product)
    return joined(*serving_across(pairs, choice.name, across).forward(pairs, keep=False)[:2])[0]


def closed_form(
    ids: Ids,
    unit: bool,
    columns: bool,
    by_keys: bool,
    choice: Choice,
    across: Processes | None,
) -> Rule:
    """The operation as a rule of the tape; keys have a gradient if it is wanted."""

    def rule(queries: Tensor, keys: Tensor | None, scale: Any) -> tuple[Any, Any, Pullback]:
        def pullback(residuals: Any, upstream: Any) -> tuple[Tensor | None, ...]:
            queries, keys, scale, row_divisor, column_divisor, *kept = residuals
            pairs = Pairs(queries, keys, scale, ids, unit, columns, choice.product)
            row, column = sides(upstream, row_divisor, column_divisor)
            grads = served.backward(pairs, row, column, kept, by_keys)
            return *grads, scale_gradient(queries, keys, grads[0], scale)

        pairs = Pairs(queries, keys, scale, ids, unit, columns, choice.product)
        served = serving_across(pairs, choice.name, across)
        row, column, kept = served.forward(pairs, keep=True)
        value, divisors = joined(row, column)
        return value, (queries, keys, scale, *divisors, *kept), pullback

    return rule
