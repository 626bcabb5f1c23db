"""What is timed on a GPU: the dense form, dense compiled, ours, and who else has kernels."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import torch

from benchmarks import peers
from ntxent.torch import info_nce, nt_xent

TEMPERATURE = 0.1
# Of loss and gradient at N = 512, relative as in docs/numerics.md; it has where they come from.
BOUNDS = {"float32": (1e-6, 1e-5), "TF32": (1e-4, 1e-2), "bfloat16": (1e-3, 5e-2)}
LOSSES = ("nt_xent", "info_nce")
LABELS = {
    "dense": "cross-entropy",
    "compiled": "cross-entropy, compiled",
    "inf_cl": "inf-cl",
    "memeff": "memeff",
    "ntxent_ieee": "ntxent, IEEE products",  # what was tried before three TF32 products
    "ntxent": "ntxent",
}
DISTRIBUTIONS = {"inf_cl": "inf-cl", "memeff": "memeff", "ntxent": "ntxent"}
OURS = {"ntxent", "ntxent_ieee"}

Loss = Callable[[Any, Any], Any]


def forms(name: str) -> dict[str, Loss]:
    """Those of a loss that are installed; info_nce is symmetric, CLIP's."""
    pasted = peers.FORMS["torch.clip" if name == "info_nce" else "torch.eager"].make()

    def dense(a: Any, b: Any) -> Any:
        return pasted(a, b, TEMPERATURE)

    found: dict[str, Loss] = {"dense": dense, "compiled": torch.compile(dense, dynamic=False)}
    if name == "info_nce":
        found |= {key: make() for key, make in PEERS.items() if find_spec(key) is not None}
        found["ntxent"] = lambda a, b: info_nce(a, b, temperature=TEMPERATURE, symmetric=True)
    else:
        found["ntxent"] = lambda a, b: nt_xent(a, b, temperature=TEMPERATURE)
    return found


def inf_cl() -> Loss:
    """Its kernels multiply in TF32, whatever the switches say; a direction at a time."""
    from inf_cl import cal_flash_loss

    def loss(q: Any, k: Any) -> Any:
        q, k = (torch.nn.functional.normalize(x, dim=1) for x in (q, k))
        given = {"scale": 1 / TEMPERATURE, "head_dim": min(256, q.shape[1])}
        return (cal_flash_loss(q, k, **given) + cal_flash_loss(k, q, **given)).mean() / 2

    return loss


def memeff() -> Loss:
    """Without `stable`, which gives another gradient."""
    from memeff import MemoryEfficientCLIPLoss

    found: Loss = MemoryEfficientCLIPLoss(temperature=TEMPERATURE, stable=False)
    return found


PEERS = {"inf_cl": inf_cl, "memeff": memeff}


@contextlib.contextmanager
def precision(name: str, device: str) -> Iterator[None]:
    """How products are multiplied."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if name == "TF32" else "highest")
    try:
        with torch.autocast(device, torch.bfloat16, enabled=name == "bfloat16"):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def towers(rows: int, dim: int, device: str) -> list[Any]:
    """Random rows, the second tower near the first."""
    rng = torch.Generator(device).manual_seed(0)
    first, noise = torch.randn(2, rows, dim, generator=rng, device=device)
    return [x.requires_grad_() for x in (first, first + noise)]


def step(loss: Loss, inputs: list[Any]) -> list[Any]:
    """Value and gradients."""
    value = loss(*inputs)
    return [value.detach(), *torch.autograd.grad(value, inputs)]


def errors(loss: Loss, name: str, how: str, dim: int, device: str) -> tuple[float, float]:
    """A form's loss and gradient at N = 512 against the dense form in float64."""
    inputs = towers(512, dim, device)
    with precision(how, device):
        value, *grads = step(loss, inputs)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    truth, *true_grads = step(forms(name)["dense"], exact)
    off = [
        ((a - b).abs().max() / b.abs().max()).item() for a, b in zip(grads, true_grads, strict=True)
    ]
    return abs(value / truth - 1).item(), max(off)


def check(found: tuple[float, float], name: str, how: str, dim: int) -> None:
    """Refuse to time what is wrong: ours past the bounds."""
    if not all(error <= bound for error, bound in zip(found, BOUNDS[how], strict=True)):
        told = f"{name}, {how}, d = {dim}: loss {found[0]:.0e}, gradient {found[1]:.0e}"
        msg = f"{told}; expected at most {BOUNDS[how]}."
        raise RuntimeError(msg)
