"""The `Ops` of PyTorch: checks, which steps serve a device, and the way to autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ntxent._checks.messages import Lines
from ntxent._closed_form.losses import Closed
from ntxent._spec import Options
from ntxent.torch._operations import devices
from ntxent.torch._operations.autograd import ClosedForm, Loss, Step
from ntxent.torch._operations.float32 import FLOAT32
from ntxent.torch._operations.steps import FormulaOps
from ntxent.torch._pairs import threads
from ntxent.torch._pairs.implementations import IMPLEMENTATIONS, Choice, default_for
from ntxent.torch._transforms import calls


class TorchOps(FormulaOps):
    """`_protocol.Ops` for tensors; the steps of a loss are `FormulaOps`."""

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

    def known(self, ids: Tensor) -> list[int] | None:
        if calls.active() or ids.device.type != "cpu":  # reading them would wait for a GPU
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
        options: Options,
    ) -> Tensor:
        """The loss, differentiable: `dense` by autograd itself, the others in closed form."""
        device = arrays[0].device
        kind, ops = device.type, self if devices.has_float64(device) else FLOAT32
        if ops is FLOAT32 and options.across is not None:
            raise NotImplementedError(NOT_ACROSS.format(device))
        name = options.implementation
        if not torch.is_autocast_enabled(kind):
            return evaluated(ops, loss, closed, arrays, options, Choice(name))
        # Sums and losses are float32 all the same; a kernel may lower the product of the scores.
        choice = Choice(name, torch.get_autocast_dtype(kind))
        with torch.autocast(kind, enabled=False):
            return evaluated(ops, loss, closed, arrays, options, choice)


NOT_ACROSS = (
    "group= isn't served on {}, which has no float64: losses across processes add up in that. Move "
    "the rows to a device that has it, or leave group= out."
)


def evaluated(
    ops: FormulaOps,
    loss: Loss,
    closed: Callable[..., Closed],
    arrays: Sequence[Tensor],
    options: Options,
    choice: Choice,
) -> Tensor:
    """By autograd itself, or in closed form."""
    traced, alone = calls.active(), options.across is None
    if traced and choice.name is None and alone and calls.fits_a_compiler(arrays):
        choice = Choice("dense")
    value: Tensor
    if traced or choice.name == "dense":
        value = loss(ops, arrays, options._replace(implementation=choice))
    else:
        kept = options._replace(temperature=None, implementation=choice)
        step = Step(loss, closed, ops, kept, torch.is_grad_enabled())
        try:
            value = ClosedForm.apply(step, options.temperature, *arrays)
        finally:
            threads.unhush()
    return value


OPS = TorchOps(torch)
