"""How many operations a step of PyTorch dispatches, and in which dtype they add up."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.only("torch")
N, D = 64, 128


def steps(torch: Any) -> dict[str, Any]:
    """A step of each loss."""
    from ntxent.torch import info_nce, nt_xent, sup_con

    a, b = torch.randn(2, N, D, generator=torch.Generator().manual_seed(0)).unbind()
    a.requires_grad_(), b.requires_grad_()
    labels = torch.arange(N) % 8
    return {
        "nt_xent": lambda: nt_xent(a, b).backward(),
        "info_nce": lambda: info_nce(a, b, symmetric=True).backward(),
        "sup_con": lambda: sup_con(a, labels).backward(),
    }


def dispatched(step: Any) -> list[str]:
    """The operations that a step dispatches, forward and backward."""
    from torch.utils._python_dispatch import TorchDispatchMode

    found: list[str] = []

    class Listener(TorchDispatchMode):
        def __torch_dispatch__(
            self, op: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            found.append(str(op))
            return op(*args, **(kwargs or {}))

    with Listener():
        step()
    return found


@pytest.mark.parametrize(("name", "most"), [("nt_xent", 43), ("info_nce", 53), ("sup_con", 85)])
def test_a_step_is_made_of_few_operations(backend: Any, name: str, most: int) -> None:
    """Each costs some microseconds, whatever it is given, and is a launch on a GPU."""
    found = dispatched(steps(backend.torch)[name])
    assert 10 < len(found) <= most, found


def test_dots_with_positives_add_up_in_float64(backend: Any) -> None:
    """A float32 sum is off by 1e-7, which the temperature divides."""
    torch = backend.torch
    rows, more = torch.randn(2, N, 513, generator=torch.Generator().manual_seed(0)).unbind()
    rows, others = (torch.nn.functional.normalize(x) for x in (rows, rows + 0.01 * more))
    expected = (rows.double() * others.double()).sum(1)
    torch.testing.assert_close(backend.ops.row_dot(rows, others), expected, rtol=0, atol=2e-8)
