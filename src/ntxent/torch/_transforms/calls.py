"""The hot operation and the sums of classes, as they are called while a transform looks on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ntxent.torch._operations import devices
from ntxent.torch._pairs import tiled
from ntxent.torch._pairs.dense import strips
from ntxent.torch._pairs.excluded import Ids
from ntxent.torch._pairs.implementations import Choice, check_serves
from ntxent.torch._processes.group import ALONE, Group
from ntxent.torch._transforms.class_sums import ClassSums, in_order
from ntxent.torch._transforms.functions import NOT_ACROSS, PairLogsumexp


def active() -> bool:
    """Whether a transform looks on; asked at every call, so by the cheapest means there are."""
    if torch.compiler.is_compiling():  # by torch.compile or torch.export
        return True
    found: bool = torch._C._are_functorch_transforms_active()
    return found or forward_mode()


def forward_mode() -> bool:
    """Whether forward mode is on, of `torch.func` or of `torch.autograd.forward_ad`."""
    return forward_ad._current_level >= 0


def fits_a_compiler(arrays: Sequence[Tensor]) -> bool:
    """Whether a compiler is at work on a batch of one tile, on a CPU.

    It fuses the dense form into fewer passes than a tile takes, where an operator's call would be
    half of the time. Sizes that it leaves open are not guarded: one graph serves them all.
    """
    if not torch.compiler.is_compiling() or arrays[0].device.type != "cpu":
        return False
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    fits: bool = statically_known_true(sum(x.shape[0] for x in arrays) <= tiled.TILE)
    return fits


def pair_logsumexp(
    queries: Tensor,
    keys: Tensor | None,
    scale: float | Tensor,
    ids: Ids,
    unit: bool,
    columns: bool,
    choice: Choice,
    across: Group | None,
) -> Tensor:
    """See `ntxent._protocol.Ops.pair_logsumexp`; differentiable in every way."""
    query_ids, key_ids = ids
    if forward_mode():
        if across is not None:
            raise NotImplementedError(NOT_ACROSS.format("forward mode"))
        if choice.name == "triton" and not torch.compiler.is_compiling():
            check_serves(queries)  # which a tracer can't follow
        return strips(queries, keys, scale, query_ids, key_ids, columns)
    if not isinstance(scale, Tensor):
        wide = torch.float64 if devices.has_float64(queries.device) else torch.float32
        scale = torch.full((), scale, dtype=wide, device=queries.device)
    period = 0
    if not isinstance(query_ids, Tensor):
        period, query_ids, key_ids = query_ids, None, None
    options = period, unit, columns, *choice, *(across or ALONE)
    inputs = queries, keys, scale, query_ids, key_ids, *options
    if torch.compiler.is_compiling():
        from ntxent.torch._transforms import nodes

        value: Tensor = nodes.pair_logsumexp(*inputs)[0]
    else:
        value = PairLogsumexp.apply(*inputs)[0]
    return value


def class_sums(rows: Tensor, groups: Tensor, across: Group | None) -> Tensor:
    """The sums, in the same order at every run; rows with equal `groups` are one group."""
    if across is None and (forward_mode() or not torch.compiler.is_compiling()):
        return in_order(rows, groups)
    inputs = rows, groups, *(across or ALONE)
    if torch.compiler.is_compiling():
        from ntxent.torch._transforms import nodes

        found: Tensor = nodes.class_sums(*inputs)
    else:
        found = ClassSums.apply(*inputs)
    return found
