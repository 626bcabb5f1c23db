"""The `Ops` of PyTorch: the tape's rules over torch, the hot operation, the way into autograd."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ntxent._classes import Classes, classes
from ntxent._tape import Tape, Traced
from ntxent._tape_ops import TapeOps
from ntxent._words import Lines
from ntxent.torch import _operators, _transforms
from ntxent.torch._class_sums import class_sums
from ntxent.torch._implementations import IMPLEMENTATIONS, Choice, default_for
from ntxent.torch._pair_logsumexp import pair_logsumexp

Loss = Callable[[Sequence[Any], Any, Any], Any]


class TorchOps(TapeOps):
    """`_protocol.Ops` for tensors."""

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
    class_sums = staticmethod(class_sums)

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

    def cast(self, array: Tensor, dtype: torch.dtype) -> Tensor:
        return array if array.dtype == dtype else array.type(dtype)  # half a microsecond below `to`

    def log1pexp(self, x: Tensor) -> Tensor:
        # Past its default threshold of 20 softplus returns x itself, 1e-10 off in float64.
        return F.softplus(x, threshold=40.0)

    def softplus_gradient(self, g: Tensor, x: Tensor, softplus: Tensor) -> Tensor:
        del softplus
        return torch.sigmoid(x).mul_(g)

    def chunks(self, rows: Tensor, count: int) -> Sequence[Tensor]:
        return rows.chunk(count)

    def unit_rows(self, arrays: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        differentiated = torch.is_grad_enabled() or _transforms.active()
        if differentiated or arrays[0].dtype != torch.float32:
            return super().unit_rows(arrays)
        # The same bits by four operations, which make no float64 copy of the rows.
        rows = torch.cat(tuple(arrays))
        norm = torch.linalg.vector_norm(rows, dim=-1, keepdim=True, dtype=torch.float64)
        length = torch.threshold_(norm, 0.0, math.inf)
        return rows.div_(length), length

    def stacked_float64(self, arrays: Sequence[Tensor]) -> Tensor:
        return torch.cat(tuple(arrays)).double()

    def lengths(self, rows: Tensor) -> Tensor:
        # Of squares, as vector_norm has no second derivative at a zero row.
        return torch.threshold(rows.square().sum(-1, keepdim=True), 0.0, math.inf).sqrt()

    def largest(self, rows: Tensor) -> Tensor:
        largest = rows.detach().abs().amax(-1, keepdim=True)
        return largest.masked_fill(largest == 0, 1.0)

    def column(self, x: Tensor) -> Tensor:
        return x.unsqueeze(1)  # indexing with None takes twice as long

    def minus_product(self, a: Tensor, b: Tensor, c: float | Tensor) -> Tensor:
        if isinstance(c, Tensor):
            return torch.addcmul(a, b, c, value=-1)
        return torch.sub(a, b, alpha=c)

    def spread(self, x: float | Tensor, size: int, device: torch.device) -> Tensor:
        if isinstance(x, Tensor):
            return x.expand(size)
        return torch.full((size,), x, dtype=torch.float64, device=device)

    def row_dot(self, a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(1, dtype=torch.float64)

    def classes(self, labels: Tensor, across: Any) -> Classes:
        labels = labels.long()
        if across is not None:
            return Classes(*_operators.process_classes(labels, *across))
        index = torch.arange(labels.shape[0], device=labels.device)
        return classes(torch, labels, labels.sort().values, Tensor.double, index)

    def logsumexp(self, scores: Tensor) -> Tensor:
        return scores.logsumexp(1)

    def or_one(self, count: Tensor) -> Tensor:
        return torch.threshold(count, 0.0, 1.0)

    def one_id(self, rows: Tensor, value: int) -> Tensor:
        return torch.full(rows.shape[:1], value, device=self.device(rows))

    def known(self, ids: Tensor) -> list[int] | None:
        if _transforms.active() or ids.device.type != "cpu":  # reading them would wait for a GPU
            return None
        found: list[int] = ids.tolist()
        return found

    def count(self, rows: Tensor) -> int:
        return rows.shape[0]  # len() of it would be a constant to torch.export

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
        arrays: Sequence[Tensor],
        temperature: Any,
        implementation: str | None,
        across: Any = None,
    ) -> Tensor:
        """The loss, differentiable: `dense` by autograd itself, the others on the tape."""
        kind = arrays[0].device.type
        if not torch.is_autocast_enabled(kind):
            return evaluated(loss, arrays, temperature, Choice(implementation), across)
        # Sums and losses are float32 all the same; a kernel may lower the product of the scores.
        choice = Choice(implementation, torch.get_autocast_dtype(kind))
        with torch.autocast(kind, enabled=False):
            return evaluated(loss, arrays, temperature, choice, across)


def evaluated(
    loss: Loss, arrays: Sequence[Tensor], temperature: Any, choice: Choice, across: Any
) -> Tensor:
    """By autograd itself, or on the tape."""
    traced = _transforms.active()
    if traced and choice.name is None and across is None and _transforms.fits_a_compiler(arrays):
        choice = Choice("dense")
    value: Tensor
    if traced or choice.name == "dense":
        value = loss(arrays, temperature, choice)
    else:
        at_once = across is None  # where others' upstream is needed, it isn't there yet
        step = loss, choice, torch.is_grad_enabled(), at_once
        value = _OnTape.apply(step, temperature, *arrays)
    return value


OPS = TorchOps(torch)


class _OnTape(torch.autograd.Function):
    """A loss as one node of autograd's graph, differentiated by its tape.

    The upstream of a scalar loss is a factor and no more, so its gradients are computed at once,
    while the tiles are still at hand: nothing is kept but the gradients themselves (and the inputs,
    as they are, for second derivatives), and the encoder's backward pass has the memory.
    Half-precision gradients can't be: scaled only after they were rounded, they would underflow
    where a loss scaler is meant to prevent it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        step: tuple[Loss, Choice, bool, bool],
        temperature: Any,
        *arrays: Tensor,
    ) -> Tensor:
        loss, choice, grad_enabled, at_once = step
        inputs = (temperature, *arrays)
        needed = ctx.needs_input_grad[1:]
        if not (grad_enabled and any(needed)):
            value: Tensor = loss(arrays, temperature, choice)
            return value
        tape = Tape()
        watched = [tape.watch(x) if need else x for x, need in zip(inputs, needed, strict=True)]
        output = loss(watched[1:], watched[0], choice)
        value = output.value
        places = [x.place if type(x) is Traced else None for x in watched]
        by_number = not isinstance(temperature, Tensor)
        ctx.loss, ctx.tape = loss, None
        ctx.temperature = temperature if by_number else None
        held = _held(arrays if by_number else inputs)
        exact = arrays[0].dtype == value.dtype and (by_number or temperature.dtype == value.dtype)
        if at_once and exact and value.dim() == 0:
            ctx.save_for_backward(held, *tape.gradients(output.place, 1.0, places, tape.residuals))
            return value
        # Autograd owns the tensors: it frees them after the backward pass, and hooks may offload
        # them; the tape keeps its structure and the few numbers among its residuals.
        residuals, tape.residuals = tape.residuals, []
        is_tensor = [isinstance(x, Tensor) for x in residuals]
        tensors = [x if tensor else None for x, tensor in zip(residuals, is_tensor, strict=True)]
        ctx.numbers = [None if t else x for x, t in zip(residuals, is_tensor, strict=True)]
        ctx.save_for_backward(held, *tensors)
        ctx.tape, ctx.places, ctx.output = tape, places, output.place
        return value

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = upstream
        held, *kept = ctx.saved_tensors
        grads: Sequence[Tensor | None]
        if torch.is_grad_enabled():
            grads = _graph_of_gradients(ctx, held, g)
        elif ctx.tape is None:
            grads = [None if grad is None else grad * g for grad in kept]
        else:
            residuals = [x if n is None else n for x, n in zip(kept, ctx.numbers, strict=True)]
            with torch.autocast(g.device.type, enabled=False):
                grads = ctx.tape.gradients(ctx.output, g, ctx.places, residuals)
        return (None, *grads)


class _Inputs(torch.autograd.Function):
    """The inputs of a loss, for a second derivative alone: an empty tensor, whose node saves them.

    PyTorch refuses all that a node has saved if any of it was changed in place since. A queue is,
    right after the loss, and the first backward pass has no need of it: it asks the loss's node for
    the gradients only, and this one for nothing.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*inputs)
        return torch.empty(0)


def _held(inputs: Sequence[Tensor]) -> Tensor | None:
    """The inputs behind an empty tensor; None if one is of inference mode, which can't be saved."""
    for x in inputs:
        if x.is_inference():
            return None
    with torch.enable_grad():
        held: Tensor = _Inputs.apply(*inputs)
    return held


UNSAVED = (
    "a second derivative needs the inputs of the loss again, and one of them was made under "
    "torch.inference_mode(), so that autograd can't save it. Make it under torch.no_grad(), or use "
    'implementation="dense".'
)


def _graph_of_gradients(ctx: Any, held: Tensor | None, g: Tensor) -> list[Tensor | None]:
    """Under create_graph=True: the dense form's gradients by autograd, right to any order."""
    if held is None:
        raise RuntimeError(UNSAVED)
    node: Any = held.grad_fn
    # Aliases, so that an input that is made from another (or is another) is held constant here.
    aliases = [x.view_as(x) for x in node.saved_tensors]
    inputs = aliases if ctx.temperature is None else [ctx.temperature, *aliases]
    with torch.autocast(g.device.type, enabled=False):
        value = ctx.loss(inputs[1:], inputs[0], Choice("dense"))
    needed = ctx.needs_input_grad[1:]
    wanted = [x for x, need in zip(inputs, needed, strict=True) if need]
    found = iter(torch.autograd.grad(value, wanted, g, create_graph=True))
    return [next(found) if need else None for need in needed]
