"""While workers have tiles, the calling thread's own operations have no other threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.only("torch")


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def rows(*sizes: int) -> list[Any]:
    import torch

    rng = np.random.default_rng(0)
    return [
        torch.from_numpy(rng.standard_normal((size, 16)).astype("float32")).requires_grad_()
        for size in sizes
    ]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The caller's number of threads at each pass, and what served it."""
    import torch

    from ntxent.torch._pairs import one_tile, tiled

    found: list[tuple[str, int]] = []

    def watched(served: Any, *args: Any, **kwargs: Any) -> Any:
        found.append((served.__module__.rpartition(".")[2], torch.get_num_threads()))
        return served(*args, **kwargs)

    for module in (one_tile, tiled):
        for name in ("forward", "backward"):
            monkeypatch.setattr(module, name, partial(watched, getattr(module, name)))
    return found


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_one_thread_between_tiles(seen: list[tuple[str, int]], reduction: str) -> None:
    import torch

    from ntxent.torch import nt_xent

    nt_xent(*rows(400, 400), reduction=reduction).sum().backward()
    assert seen == [("tiled", 1)] * 2
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("sizes", [(400, 400), (20, 20)])
def test_all_threads_in_a_matrix(seen: list[tuple[str, int]], sizes: tuple[int, ...]) -> None:
    """Where the larger side is one tile; negatives of each query's own are never tiled."""
    import torch

    from ntxent.torch import info_nce

    query, key = rows(*sizes)
    own = torch.ones(len(query), 40, 16, requires_grad=True)
    info_nce(query, key, negatives=own).backward()
    assert seen == [("one_tile", 2)] * 2


def test_a_queue_hushes(seen: list[tuple[str, int]]) -> None:
    from ntxent.torch import info_nce

    query, key, queue = rows(20, 20, 900)
    info_nce(query, key, negatives=queue).backward()
    assert ("tiled", 1) in seen


def test_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from ntxent.torch import nt_xent
    from ntxent.torch._pairs import tiled

    views = rows(400, 400)
    losses = nt_xent(*views, reduction="none")

    def fail(*_: Any, **__: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(tiled, "backward", fail)
    with pytest.raises(MemoryError):
        losses.sum().backward()
    assert torch.get_num_threads() == 2
    with pytest.raises(MemoryError):
        nt_xent(*views)
    assert torch.get_num_threads() == 2


def test_backward_in_another_thread() -> None:
    import torch

    from ntxent.torch import nt_xent

    losses = nt_xent(*rows(400, 400), reduction="none")
    found: list[int] = []

    def work() -> None:
        torch.set_num_threads(2)
        losses.sum().backward()
        found.append(torch.get_num_threads())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [*found, torch.get_num_threads()] == [2, 2]
