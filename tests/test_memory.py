"""The tiled paths never hold an array of n^2 elements."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from _largest import largest_tensor


@pytest.mark.only("numpy")
def test_numpy_tiles_stay_far_below_the_matrix() -> None:
    from ntxent.numpy import nt_xent, value_and_grad

    z1, z2 = np.random.default_rng(0).standard_normal((2, 2048, 8)).astype(np.float32)
    peaks = {}
    for implementation in ("dense", "tiled"):
        tracemalloc.start()
        value_and_grad(nt_xent)(z1, z2, implementation=implementation)
        peaks[implementation] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    matrix = 4096**2 * 4
    assert peaks["dense"] > matrix  # the measure sees a matrix where there is one
    assert peaks["tiled"] < matrix / 10


@pytest.mark.only("torch")
@pytest.mark.parametrize("keep", [0, 3])
def test_no_torch_operation_makes_a_matrix(keep: int, monkeypatch: Any) -> None:
    import torch

    from ntxent.torch import nt_xent
    from ntxent.torch._pairs import tiled

    monkeypatch.setattr(tiled, "TILE", 64)
    monkeypatch.setattr(tiled, "KEEP_BYTES", keep * 64 * 64 * 4)
    z1, z2 = (torch.randn(200, 8, requires_grad=True) for _ in range(2))
    sizes = {}
    for implementation in ("dense", "tiled"):
        with largest_tensor() as largest:
            nt_xent(z1, z2, implementation=implementation).backward()
        sizes[implementation] = largest.size
    assert sizes["dense"] == 400**2
    assert sizes["tiled"] <= max(64 * 64, 400 * 8)


@pytest.mark.only("torch")
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_torch_frees_everything_after_the_backward_pass(reduction: str) -> None:
    """A loss that is held on to (for a plot, say) doesn't hold its batch, gradients or tiles."""
    import gc
    import weakref

    import torch

    from ntxent.torch import nt_xent

    saved: list[Any] = []

    def pack(x: Any) -> Any:
        copy = x.detach().clone()
        saved.append(weakref.ref(copy))
        return copy

    z = [torch.randn(30, 8, requires_grad=True) for _ in range(2)]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        loss = nt_xent(*z, reduction=reduction)
    assert len(saved) >= 4
    assert all(ref() is not None for ref in saved)
    upstream = torch.ones_like(loss)
    loss.backward(upstream)
    gc.collect()
    assert all(ref() is None for ref in saved)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward(upstream)
