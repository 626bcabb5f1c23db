"""The `Ops` of PyTorch: the tape's rules over torch, the hot operation, the way into autograd."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ntxent._tape import Tape, Traced
from ntxent._tape_ops import TapeOps
from ntxent.torch._pair_logsumexp import IMPLEMENTATIONS, pair_logsumexp

Loss = Callable[[Sequence[Any], Any, str], Any]


class TorchOps(TapeOps):
    """`_formula.Ops` for tensors."""

    BACKEND = "torch"
    ARRAY_NAME = "torch.Tensor"
    FLOATS = frozenset({torch.float64, torch.float32, torch.bfloat16, torch.float16})
    INTEGERS = frozenset({torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8})
    IMPLEMENTATIONS = IMPLEMENTATIONS
    accepts = staticmethod(torch.is_tensor)
    pair_logsumexp = staticmethod(pair_logsumexp)

    def cast(self, array: Tensor, dtype: torch.dtype) -> Tensor:
        return array if array.dtype == dtype else array.to(dtype)

    def log1pexp(self, x: Tensor) -> Tensor:
        # Past its default threshold of 20 softplus returns x itself, 1e-10 off in float64.
        return F.softplus(x, threshold=40.0)

    def softplus_gradient(self, g: Tensor, x: Tensor, softplus: Tensor) -> Tensor:
        del softplus
        return torch.sigmoid(x).mul_(g)

    def chunks(self, rows: Tensor, count: int) -> Sequence[Tensor]:
        return rows.chunk(count)

    def norms(self, rows: Tensor) -> Tensor:
        if torch.is_grad_enabled():  # vector_norm has no second derivative at a zero row
            squares = rows.double().square().sum(1, keepdim=True)
            return self.zero_to(math.inf, squares).sqrt()
        lengths: Tensor = torch.linalg.vector_norm(rows, 2, 1, keepdim=True, dtype=torch.float64)
        return lengths

    def largest(self, rows: Tensor) -> Tensor:
        return rows.detach().abs().amax(1, keepdim=True)

    def zero_to(self, value: float, array: Tensor) -> Tensor:
        return array.masked_fill(array == 0, value)

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

    def number(self, temperature: Tensor) -> None:
        """Nothing: reading a tensor's value would wait for its device."""

    def choose(self, device: Any) -> str:
        """What `implementation=None` means: tiled; one tile is the dense closed form."""
        del device  # one answer for all, until a kernel serves some
        return "tiled"

    def devices(self) -> list[str]:
        """The devices of this machine."""
        found = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        return [f"cpu ({torch.get_num_threads()} threads)", *found]

    def evaluate(
        self, loss: Loss, views: Sequence[Tensor], temperature: Any, implementation: str | None
    ) -> Tensor:
        """The loss, differentiable: `dense` by autograd itself, the others on the tape."""
        name = implementation or self.choose(views[0].device)
        if name != "dense" and torch.is_grad_enabled():
            value: Tensor = _OnTape.apply(loss, name, temperature, *views)
        else:
            value = loss(views, temperature, name)
        return value


OPS = TorchOps(torch)


class _OnTape(torch.autograd.Function):
    """A loss as one node of autograd's graph, differentiated by its tape.

    The upstream of a scalar loss is a factor and no more, so its gradients are computed at once,
    while the tiles are still at hand: nothing is kept but the gradients themselves, and the
    encoder's backward pass has the memory. Half-precision gradients can't be: scaled only after
    they were rounded, they would underflow where a loss scaler is meant to prevent it.
    """

    @staticmethod
    def forward(ctx: Any, loss: Loss, name: str, temperature: Any, *views: Tensor) -> Tensor:
        inputs = (temperature, *views)
        needed = ctx.needs_input_grad[2:]
        if not any(needed):
            value: Tensor = loss(views, temperature, name)
            return value
        tape = Tape()
        watched = [tape.watch(x) if need else x for x, need in zip(inputs, needed, strict=True)]
        output = loss(watched[1:], watched[0], name)
        value = output.value
        places = [x.place if type(x) is Traced else None for x in watched]
        ctx.loss, ctx.tape = loss, None
        ctx.temperature = None if isinstance(temperature, Tensor) else temperature
        if value.dim() == 0 and value.dtype == views[0].dtype:
            kept = tape.gradients(output.place, 1.0, places, tape.residuals)
        else:
            kept, tape.residuals = tape.residuals, []
            ctx.tape, ctx.places, ctx.output = tape, places, output.place
        # Autograd owns the tensors: it frees them after the backward pass, and hooks may offload
        # them.
        is_tensor = [isinstance(x, Tensor) for x in kept]
        ctx.numbers = [None if tensor else x for x, tensor in zip(kept, is_tensor, strict=True)]
        ctx.save_for_backward(
            temperature if isinstance(temperature, Tensor) else None,
            *views,
            *[x if tensor else None for x, tensor in zip(kept, is_tensor, strict=True)],
        )
        return value

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = upstream
        needed = ctx.needs_input_grad[2:]
        saved = ctx.saved_tensors
        inputs, kept = saved[: len(needed)], saved[len(needed) :]
        if torch.is_grad_enabled():
            return (None, None, *_graph_of_gradients(ctx, inputs, g))
        if ctx.tape is None:
            return (None, None, *[None if grad is None else grad * g for grad in kept])
        residuals = [x if n is None else n for x, n in zip(kept, ctx.numbers, strict=True)]
        return (None, None, *ctx.tape.gradients(ctx.output, g, ctx.places, residuals))


def _graph_of_gradients(
    ctx: Any, inputs: Sequence[Tensor | None], g: Tensor
) -> list[Tensor | None]:
    """Under create_graph=True: the dense form's gradients by autograd, right to any order."""
    needed = ctx.needs_input_grad[2:]
    temperature = ctx.temperature if inputs[0] is None else inputs[0]
    value = ctx.loss(inputs[1:], temperature, "dense")
    wanted = [x for x, need in zip(inputs, needed, strict=True) if need and x is not None]
    found = iter(torch.autograd.grad(value, wanted, g, create_graph=True))
    return [next(found) if need else None for need in needed]
