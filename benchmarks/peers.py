"""The forms that are compared: what people paste, and ours.

Each factory imports its framework and returns a function (z1, z2, temperature) -> loss; for NumPy,
which has no autograd, -> (loss, gradients).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

Loss = Callable[[Any, Any, float], Any]


def torch_eager() -> Loss:
    """The cross-entropy form, as most repositories have it."""
    import torch
    import torch.nn.functional as F

    def loss(z1: torch.Tensor, z2: torch.Tensor, temperature: float) -> torch.Tensor:
        z = F.normalize(torch.cat([z1, z2]), dim=1)
        itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
        logits = (torch.mm(z, z.T) / temperature).masked_fill(itself, -math.inf)
        partner = torch.arange(len(z), device=z.device).roll(len(z) // 2)
        return F.cross_entropy(logits, partner)

    return loss


def torch_compiled() -> Loss:
    """The same under torch.compile, for one shape, which is when it is fastest."""
    import torch

    compiled: Loss = torch.compile(torch_eager(), dynamic=False)
    return compiled


def torch_ours() -> Loss:
    """`ntxent.torch` as it comes: implementation=None, which keeps the first tiles."""
    from ntxent.torch import nt_xent

    return lambda z1, z2, temperature: nt_xent(z1, z2, temperature=temperature)


def torch_recomputed() -> Loss:
    """The smallest: every tile is computed again in the backward pass."""
    from ntxent.torch import _tiled, nt_xent

    def loss(z1: Any, z2: Any, temperature: float) -> Any:
        before, _tiled.KEEP_BYTES = _tiled.KEEP_BYTES, 0
        try:
            return nt_xent(z1, z2, temperature=temperature, implementation="tiled")
        finally:  # the forms take turns in one process
            _tiled.KEEP_BYTES = before

    return loss


def numpy_dense() -> Loss:
    """The matrix form with the gradient in closed form, in plain NumPy."""
    return _numpy("dense")


def numpy_tiled() -> Loss:
    """`ntxent.numpy` on tiles."""
    return _numpy("tiled")


def _numpy(implementation: str) -> Loss:
    from ntxent.numpy import nt_xent, value_and_grad

    both = value_and_grad(nt_xent)
    return lambda z1, z2, temperature: both(
        z1, z2, temperature=temperature, implementation=implementation
    )


@dataclass(frozen=True)
class Form:
    """A form, with what it costs: enough to plan a run that fits the machine and the patience.

    The cost is a step of forward and backward on two cores, `call_us` and `pair_ns` for each of the
    (2N)^2 pairs; `pair_bytes` of memory for each pair.
    """

    library: str
    name: str
    label: str
    make: Callable[[], Loss]
    call_us: float
    pair_ns: float
    pair_bytes: float = 0.0
    compiles: bool = False

    def seconds(self, images: int) -> float:
        """How long a step will take, roughly."""
        return self.call_us * 1e-6 + self.pair_ns * 1e-9 * (2 * images) ** 2

    def bytes(self, images: int) -> float:
        """How much memory a step will take, roughly; the tiled forms count as nothing."""
        return self.pair_bytes * (2 * images) ** 2


# The first of each library is the baseline of the ratios.
ALL = (
    Form("torch", "eager", "eager cross-entropy", torch_eager, 300, 20, 13),
    Form("torch", "compiled", "torch.compile", torch_compiled, 200, 14, 5, compiles=True),
    Form("torch", "ntxent", "ntxent", torch_ours, 350, 4.5),
    Form("torch", "recomputed", "ntxent, tiles recomputed", torch_recomputed, 350, 5),
    Form("numpy", "dense", "NumPy, dense", numpy_dense, 200, 20, 13),
    Form("numpy", "tiled", "ntxent, NumPy", numpy_tiled, 200, 8),
)
FORMS = {f"{form.library}.{form.name}": form for form in ALL}
BASELINES = {"torch": "torch.eager", "numpy": "numpy.dense"}


def installed(library: str) -> bool:
    """Whether the library can be imported."""
    return find_spec(library) is not None


class TorchRun:
    """A form on given views: one step is forward and backward."""

    def __init__(self, loss: Loss, views: Sequence[np.ndarray], temperature: float) -> None:
        import torch

        self.loss, self.temperature = loss, temperature
        self.views = [torch.from_numpy(view).requires_grad_() for view in views]
        self.value: Any = None

    def clear(self) -> None:
        """What `optimizer.zero_grad()` does between steps; not timed."""
        self.value = None
        for view in self.views:
            view.grad = None

    def step(self) -> None:
        self.value = self.loss(*self.views, self.temperature)
        self.value.backward()

    def result(self) -> tuple[float, list[np.ndarray]]:
        return self.value.item(), [view.grad.numpy() for view in self.views]


class NumpyRun:
    """The same where the form itself returns the gradients."""

    def __init__(self, loss: Loss, views: Sequence[np.ndarray], temperature: float) -> None:
        self.loss, self.views, self.temperature = loss, views, temperature
        self.found: Any = None

    def clear(self) -> None:
        self.found = None

    def step(self) -> None:
        self.found = self.loss(*self.views, self.temperature)

    def result(self) -> tuple[float, list[np.ndarray]]:
        loss, gradients = self.found
        return float(loss), list(gradients)


Run = TorchRun | NumpyRun
RUNS: dict[str, type[Run]] = {"torch": TorchRun, "numpy": NumpyRun}
