"""The `Ops` of PyTorch: checks, the hot operation, the closed form's steps, the way to autograd."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ntxent._classes import Classes, classes
from ntxent._closed import Closed
from ntxent._words import Lines
from ntxent.torch import _operators, _transforms
from ntxent.torch._closed_form import ClosedForm, Loss, Step
from ntxent.torch._formula_ops import FormulaOps
from ntxent.torch._implementations import IMPLEMENTATIONS, Choice, default_for
from ntxent.torch._pair_logsumexp import closed_pairs, pair_logsumexp


class TorchOps(FormulaOps):
    """`_protocol.Ops` for tensors, and what the closed form asks."""

    BACKEND = "torch"
    ARRAY_NAME = "torch.Tensor"
    FLOATS = frozenset({torch.float64, torch.float32, torch.bfloat16, torch.float16})
    INTEGERS = frozenset({torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8})
    IMPLEMENTATIONS = IMPLEMENTATIONS
    LINES = Lines(
        row="z.flatten(1)",
        views="z.unbind(1)",
        rows="z.flatten(0, 1)",
        labels="labels.repeat_interleave({})",
    )
    pair_logsumexp = staticmethod(pair_logsumexp)
    closed_pairs = staticmethod(closed_pairs)

    def accepts(self, value: Any) -> bool:
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_nested:
            return False
        return type(value) is Tensor or not hasattr(value, "to_local")

    def odd(self, value: Any) -> str | None:
        if not isinstance(value, Tensor):
            return None
        if value.is_nested:
            return "a nested one. Pass its rows as one plain tensor: torch.cat(z.unbind())."
        if value.layout != torch.strided:
            return f"one of layout {value.layout}. Pass its to_dense()."
        return (
            "a DTensor, which is spread over processes. Pass the shard that is here, its "
            "to_local(), and group=True (or the group of its mesh) to make one batch of all."
        )

    def device(self, array: Tensor) -> torch.device:
        return array.device

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

    def classes(self, labels: Tensor, across: Any) -> Classes:
        labels = labels.long()
        if across is not None:
            return Classes(*_operators.process_classes(labels, *across))
        index = torch.arange(labels.shape[0], device=labels.device)
        return classes(torch, labels, labels.sort().values, Tensor.double, index)

    def known(self, ids: Tensor) -> list[int] | None:
        if _transforms.active() or ids.device.type != "cpu":  # reading them would wait for a GPU
            return None
        found: list[int] = ids.tolist()
        return found

    def number(self, temperature: Tensor) -> None:
        """Nothing: a tensor's value isn't checked, as it may be on a device or be traced."""

    def choose(self, device: Any) -> str:
        """What `implementation=None` means for float32 rows on one of `devices`."""
        return default_for(torch.empty(0, device=str(device).split()[0]))

    def devices(self) -> list[str]:
        """The devices of this machine."""
        found = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        return [f"cpu ({torch.get_num_threads()} threads)", *found]

    def evaluate(
        self,
        loss: Loss,
        closed: Callable[..., Closed],
        arrays: Sequence[Tensor],
        temperature: Any,
        implementation: str | None,
        across: Any = None,
    ) -> Tensor:
        """The loss, differentiable: `dense` by autograd itself, the others in closed form."""
        kind = arrays[0].device.type
        if not torch.is_autocast_enabled(kind):
            return evaluated(loss, closed, arrays, temperature, Choice(implementation), across)
        # Sums and losses are float32 all the same; a kernel may lower the product of the scores.
        choice = Choice(implementation, torch.get_autocast_dtype(kind))
        with torch.autocast(kind, enabled=False):
            return evaluated(loss, closed, arrays, temperature, choice, across)


def evaluated(
    loss: Loss,
    closed: Callable[..., Closed],
    arrays: Sequence[Tensor],
    temperature: Any,
    choice: Choice,
    across: Any,
) -> Tensor:
    """By autograd itself, or in closed form."""
    traced = _transforms.active()
    if traced and choice.name is None and across is None and _transforms.fits_a_compiler(arrays):
        choice = Choice("dense")
    value: Tensor
    if traced or choice.name == "dense":
        value = loss(arrays, temperature, choice)
    else:
        at_once = across is None  # where others' upstream is needed, it isn't there yet
        step = Step(loss, closed, OPS, choice, torch.is_grad_enabled(), at_once)
        value = ClosedForm.apply(step, temperature, *arrays)
    return value


OPS = TorchOps(torch)
