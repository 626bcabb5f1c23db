"""A loss and its closed-form gradient as one node of autograd's graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ntxent._closed_form.losses import Closed
from ntxent._spec import Options
from ntxent.torch._pairs.implementations import Choice
from ntxent.torch._pairs.threads import LOCAL, hush, unhush

Loss = Callable[[Any, Sequence[Any], Any], Any]


class Step(NamedTuple):
    """A loss, in the form that autograd differentiates and in closed form."""

    loss: Loss
    closed: Callable[..., Closed]
    ops: Any  # that carry both out
    options: Options  # without the temperature, which the node saves as it does all tensors
    grad_enabled: bool


class ClosedForm(torch.autograd.Function):
    """A loss with its gradient, of the closed form.

    The upstream of a scalar loss is a factor and no more, so its gradients are computed at once,
    while the tiles are still at hand: nothing is kept but the gradients themselves (and the inputs,
    as they are, for second derivatives), and the encoder's backward pass has the memory.
    Half-precision gradients can't be: scaled only after they were rounded, they would underflow
    where a loss scaler is meant to prevent it.
    """

    @staticmethod
    def forward(ctx: Any, step: Step, temperature: Any, *arrays: Tensor) -> Tensor:
        needs = ctx.needs_input_grad[1:] if step.grad_enabled else ()
        found = step.closed(step.ops, arrays, temperature, step.options, needs)
        value: Tensor = found.value
        if found.pullback is None:
            return value
        by_number = not isinstance(temperature, Tensor)
        ctx.step, ctx.hushed = step, LOCAL.asked > 0
        ctx.pullback, ctx.counts = None, (1, *found.counts)
        ctx.temperature = temperature if by_number else None
        inputs = arrays if by_number else (temperature, *arrays)
        ctx.dtype, held = arrays[0].dtype, _held(inputs)
        ctx.temperature_shape = None if by_number else temperature.shape
        exact = ctx.dtype == value.dtype and (by_number or temperature.dtype == value.dtype)
        alone = step.options.across is None  # or others have to see the upstream, not yet there
        if alone and exact and value.dim() == 0:
            ctx.save_for_backward(held, *found.pullback(found.saved, 1.0))
            return value
        # Autograd owns the tensors: it frees them after the backward pass, and hooks may offload
        # them; what is left are their places and a few numbers.
        tensors: list[Tensor] = []
        ctx.saved, ctx.pullback = _taken(found.saved, tensors), found.pullback
        ctx.save_for_backward(held, *tensors)
        return value

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = upstream
        held, *kept = ctx.saved_tensors
        if torch.is_grad_enabled():
            return None, *_graph_of_gradients(ctx, held, g)
        if ctx.hushed:
            hush()
        try:
            if ctx.pullback is None:
                grads = _apart(ctx, kept, g)
            else:
                with torch.autocast(g.device.type, enabled=False):
                    grads = _apart(ctx, ctx.pullback(_put_back(ctx.saved, kept), g))
        finally:
            unhush()
        return (None, *grads)


def _apart(
    ctx: Any, stacks: Sequence[Tensor | None], g: Tensor | None = None
) -> list[Tensor | None]:
    """The gradients of the temperature and of each array, times g; None for one unasked.

    Each in memory of its own: views of one would be changed together, autograd holds.
    """
    grads: list[Tensor | None] = []
    for stack, count in zip(stacks, ctx.counts, strict=True):
        if stack is None:
            grads.append(None)
            continue
        whole = stack if grads else stack.reshape(ctx.temperature_shape)  # autograd casts that
        parts: Any = (whole,) if count == 1 else whole.chunk(count)
        if g is not None:
            parts = torch._foreach_mul(parts, g)
        elif grads and stack.dtype != ctx.dtype:
            parts = [part.to(ctx.dtype) for part in parts]
        elif count > 1:
            parts = [part.clone() for part in parts]
        grads += parts
    return [x if need else None for x, need in zip(grads, ctx.needs_input_grad[1:], strict=True)]


class _Place(NamedTuple):
    """Where a tensor was among what is saved."""

    number: int


def _taken(tree: Any, tensors: list[Tensor]) -> Any:
    """Nested tuples with a place for each tensor, which is put into the list."""
    if isinstance(tree, tuple | list):
        return tuple(_taken(x, tensors) for x in tree)
    if not isinstance(tree, Tensor):
        return tree
    tensors.append(tree)
    return _Place(len(tensors) - 1)


def _put_back(tree: Any, tensors: Sequence[Tensor]) -> Any:
    """The tuples as they were."""
    if isinstance(tree, _Place):
        return tensors[tree.number]
    return tuple(_put_back(x, tensors) for x in tree) if isinstance(tree, tuple) else tree


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
    step: Step = ctx.step
    # Aliases, so that an input that is made from another (or is another) is held constant here.
    aliases = [x.view_as(x) for x in node.saved_tensors]
    inputs = aliases if ctx.temperature is None else [ctx.temperature, *aliases]
    with torch.autocast(g.device.type, enabled=False):
        options = step.options._replace(temperature=inputs[0], implementation=Choice("dense"))
        value = step.loss(step.ops, inputs[1:], options)
    needed = ctx.needs_input_grad[1:]
    wanted = [x for x, need in zip(inputs, needed, strict=True) if need]
    found = iter(torch.autograd.grad(value, wanted, g, create_graph=True))
    return [next(found) if need else None for need in needed]
