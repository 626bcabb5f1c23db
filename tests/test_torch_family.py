"""What PyTorch's users expect of `sup_con` and `info_nce` beyond the shared suite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from _largest import largest_tensor
from _small_family import LABELS, assert_near, rows

pytestmark = pytest.mark.only("torch")


@pytest.mark.parametrize("name", ["SupConLoss", "InfoNCELoss"])
def test_torch_modules_are_the_functions(name: str) -> None:
    """Fixed or learned temperature, saved and loaded; options reach the function."""
    import torch

    import ntxent.torch as module

    arrays = [torch.tensor(x) for x in rows(arrays=2)]
    options: dict[str, Any] = {"reduction": "none", "implementation": "dense"}
    function = module.info_nce
    if name == "SupConLoss":
        arrays, function = [arrays[0], torch.tensor(LABELS)], module.sup_con
    else:
        options["symmetric"] = True
    expected = function(*arrays, temperature=0.3, **options)
    fixed = getattr(module, name)(temperature=0.3, **options)
    assert torch.equal(fixed(*arrays), expected)
    assert not list(fixed.parameters())
    learned = getattr(module, name)(temperature=0.3, learn_temperature=True, **options)
    learned(*arrays).sum().backward()
    assert learned.log_temperature.grad != 0
    other = getattr(module, name)(temperature=1.0, learn_temperature=True, **options)
    other.load_state_dict(learned.state_dict())
    assert_near(other(*arrays).detach(), expected, 1e-6, name)
    with pytest.raises(ValueError, match="reduction"):
        getattr(module, name)(reduction="average")
    assert "temperature=0.3" in repr(fixed)


@pytest.mark.parametrize("implementation", ["dense", "tiled", "tiles of 4"])
def test_torch_derivatives(implementation: str, monkeypatch: Any) -> None:
    """First and second, with labels of one, two and three rows, a queue and own negatives."""
    import torch

    from ntxent.torch import info_nce, sup_con
    from ntxent.torch._pairs import tiled

    if implementation == "tiles of 4":
        monkeypatch.setattr(tiled, "TILE", 4)
    name = "dense" if implementation == "dense" else "tiled"
    z, q, k, queue = (torch.tensor(x, requires_grad=True) for x in rows(arrays=4))
    own = torch.tensor(np.stack(rows(arrays=3)).swapaxes(0, 1), requires_grad=True)
    tau = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    labels, ids = torch.tensor(LABELS), torch.tensor([0, 0, *range(1, 15)])

    def by_labels(z: Any, tau: Any) -> Any:
        return sup_con(z, labels, temperature=tau, reduction="none", implementation=name)

    def by_pairs(q: Any, k: Any, tau: Any, *more: Any) -> Any:
        options: dict[str, Any] = {"ids": ids if more and more[0] is queue else None}
        return info_nce(
            q, k, *more, temperature=tau, symmetric=True, implementation=name, **options
        )

    for fn, inputs in (
        (by_labels, (z, tau)),
        (by_pairs, (q, k, tau)),
        (by_pairs, (q, k, tau, queue)),
        (by_pairs, (q, k, tau, own)),
    ):
        assert torch.autograd.gradcheck(fn, inputs)
        assert torch.autograd.gradgradcheck(fn, inputs)


def test_torch_spends_nothing_on_keys_without_a_gradient(monkeypatch: Any) -> None:
    """A queue of constants costs no product of its own in the backward pass."""
    import torch

    from ntxent.torch import info_nce
    from ntxent.torch._pairs import tiled

    monkeypatch.setattr(tiled, "TILE", 4)
    found = []
    backward = tiled.backward
    monkeypatch.setattr(tiled, "backward", lambda *args: found.append(backward(*args)) or found[-1])
    q, k, queue = (torch.tensor(x) for x in rows(arrays=3))
    q.requires_grad_()
    info_nce(q, k, queue).backward()
    assert len(found) == 2
    assert all(by_keys is None for _, by_keys in found)
    queue.requires_grad_()
    info_nce(q, k, queue).backward()
    assert queue.grad is not None
    assert queue.grad.any()


def test_both_directions_come_from_one_pass_over_the_tiles(monkeypatch: Any) -> None:
    import torch

    from ntxent.torch import info_nce
    from ntxent.torch._pairs import tiled

    monkeypatch.setattr(tiled, "TILE", 4)
    fill, count = tiled.Tiles.fill, []
    monkeypatch.setattr(
        tiled.Tiles, "fill", lambda *args, **more: count.append(1) or fill(*args, **more)
    )
    q, k = (torch.tensor(x) for x in rows(20, 2))
    passes = []
    for symmetric in (False, True):
        count.clear()
        info_nce(q, k, symmetric=symmetric)
        passes.append(len(count))
    assert passes == [25, 25]


@pytest.mark.parametrize("name", ["sup_con", "info_nce"])
def test_no_torch_operation_makes_a_matrix(name: str, monkeypatch: Any) -> None:
    import torch

    import ntxent.torch as module
    from ntxent.torch._pairs import tiled

    monkeypatch.setattr(tiled, "TILE", 64)
    sizes = {}
    for implementation in ("dense", "tiled"):
        z1, z2 = (torch.randn(400, 8, requires_grad=True) for _ in range(2))
        second = torch.arange(400) % 30 if name == "sup_con" else z2
        with largest_tensor() as largest:
            getattr(module, name)(z1, second, implementation=implementation).backward()
        sizes[implementation] = largest.size
    assert sizes["dense"] == 400**2
    assert sizes["tiled"] <= max(64 * 64, 2 * 400 * 8)  # both towers' rows are one array
