"""How Triton's kernels are launched: memory's layout, what is refused, the choice of blocks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from _largest import largest_tensor
from _triton_pairs import pairs_of, rows_of

pytestmark = [pytest.mark.only("torch"), pytest.mark.kernels]


@pytest.fixture
def torch(backend: Any) -> Any:
    assert backend.name == "torch"
    backend.torch.manual_seed(0)
    return backend.torch


def test_strides_are_honoured(backend: Any, torch: Any) -> None:
    """Rows that lie far apart, elements that do, and rows in reverse of the memory's order."""
    from ntxent.torch._kernels import launch

    pairs = pairs_of(backend, (65, 40, 33), 0.1, "period")
    expected = launch.forward(pairs, keep=False)
    wide = torch.zeros(65, 99, device=backend.device)
    wide[:, ::3] = pairs.queries
    turned = pairs.keys.T.contiguous().T
    for queries, keys in ((wide[:, ::3], turned), (pairs.queries, turned)):
        assert not (queries.is_contiguous() and keys.is_contiguous())
        found = launch.forward(pairs._replace(queries=queries, keys=keys), keep=False)
        for got, want in zip(found[:2], expected[:2], strict=True):
            assert torch.equal(got.lse, want.lse)


def test_rows_are_copied_only_where_they_must_be(backend: Any, torch: Any) -> None:
    """Kernels get rows one after another, padded with zeros, at an aligned address."""
    from ntxent.torch._kernels.launch import packed

    memory = torch.randn(9 * 48 + 1, device=backend.device)
    good = memory[:-1].view(9, 48)
    assert packed(good) is good
    for rows in (good[:, :33], good[:, :32], good.T, memory[1:].view(9, 48), good[::2]):
        found, dim = packed(rows), rows.shape[1]
        assert found.shape == (rows.shape[0], -(-dim // 16) * 16)
        assert found.is_contiguous()
        assert found.data_ptr() % 16 == 0
        assert torch.equal(found[:, :dim], rows)
        assert not found[:, dim:].any()


def test_offsets_past_two_to_the_31(backend: Any, torch: Any) -> None:
    """Rows so long that an int32 would not reach the last; untouched memory costs nothing.

    Kernels that are told that 16 elements are the whole of a row leave the rest of it alone.
    """
    from ntxent.torch._kernels.backward import backward
    from ntxent.torch._kernels.blocks import precision
    from ntxent.torch._kernels.forward import forward

    constants = {
        "SHIFTED": False,
        "BY_IDS": False,
        "PRECISION": precision("half", (8, 0)),
        "WHOLE": True,
    }
    constants |= {"DIM": 16, "ROWS": 16, "COLUMNS": 16}
    values = rows_of(backend, 3, 16).bfloat16()
    scale, lse = torch.full((), 10.0, device=backend.device), values.new_empty(3).float()
    found = []
    for dim in (16, 2**30 + 16):
        rows, grad = (
            values.new_empty(2 * dim + 16).as_strided((3, 16), (dim, 1)) for _ in range(2)
        )
        rows.copy_(values)
        forward[1, 1](rows, 3, rows, rows, 3, rows, dim, scale, 7, lse, **constants)
        side = rows, 3, rows, torch.ones_like(lse), lse
        backward[1, 1, 1](
            *side, *side, dim, scale, 7, scale, grad, BY_OWN=True, BY_OTHERS=True, OUT=16,
            **constants,
        )  # fmt: skip
        found.append((lse.clone(), grad.contiguous()))
    assert rows[-1].storage_offset() > 2**31
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert found[0][1].any(dim=1).all()


def test_two_runs_give_the_same_bits_and_nothing_has_n_squared_elements(
    backend: Any, torch: Any
) -> None:
    from ntxent.torch import nt_xent
    from ntxent.torch._kernels.blocks import shares

    views = [rows_of(backend, 150, 16).requires_grad_() for _ in range(2)]
    nt_xent(*views, implementation="triton").backward()  # on a GPU the first measures blocks
    found = []
    with largest_tensor() as largest:
        for _ in range(2):
            loss = nt_xent(*views, implementation="triton")
            found.append((loss, *torch.autograd.grad(loss, views)))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    both = torch.cat(views)
    # the rows, in the bytes that the interpreter copies, or each share's gradient of them
    assert largest.size <= max(4, shares(both, both)) * 300 * 16


def test_what_it_can_not_serve_it_refuses(backend: Any, torch: Any, monkeypatch: Any) -> None:
    from ntxent.torch import nt_xent
    from ntxent.torch._pairs import implementations

    views = [rows_of(backend, 5, 3) for _ in range(2)]
    with pytest.raises(RuntimeError, match=r"can't serve.*float64.*convert.*tiled"):
        nt_xent(*(x.double() for x in views), implementation="triton")
    assert nt_xent(*(x.double() for x in views)).dtype == torch.float64
    monkeypatch.setattr(implementations, "has_triton", lambda: False)
    with pytest.raises(RuntimeError, match=r"can't serve.*pip install \"ntxent\[triton\]\""):
        nt_xent(*views, implementation="triton")
    assert nt_xent(*views).isfinite()  # of itself it takes another


def test_devices_that_it_can_not_serve_it_refuses(torch: Any, monkeypatch: Any) -> None:
    from triton import knobs

    from ntxent.torch._pairs.implementations import check_serves, default_for

    monkeypatch.setattr(knobs.runtime, "interpret", False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    for device, reason in (
        ("cpu", "a CUDA device .* on cpu; move"),
        ("cuda", "8.0 .* has 7.5, or"),
    ):
        rows = SimpleNamespace(dtype=torch.float32, device=torch.device(device))
        assert default_for(rows) == "tiled"
        with pytest.raises(RuntimeError, match=f"can't serve: it needs .*{reason}"):
            check_serves(rows)


def test_the_choice_of_blocks_is_measured_once(backend: Any, torch: Any, monkeypatch: Any) -> None:
    """The fastest of the list, kept; the first where bits may not depend on a measurement."""
    from triton import knobs

    from ntxent.torch._kernels import blocks

    monkeypatch.setattr(blocks, "CHOSEN", {})
    monkeypatch.setattr(knobs.runtime, "interpret", False)
    rows = torch.zeros(8, 128, device=backend.device)
    kind = blocks.kind_of("forward", rows, rows, by_ids=False)
    short = blocks.candidates("forward", kind.product, 128, kind.capability)
    assert len(short) > 1
    measured = []

    def slow_first(run: Any) -> float:
        run()
        return float(measured[-1] == short[0])

    monkeypatch.setattr(blocks, "milliseconds", slow_first)
    assert blocks.choose(kind, measured.append) == short[1]
    assert measured == short
    assert blocks.choose(kind, measured.append) == short[1]
    assert measured == short
    torch.use_deterministic_algorithms(True)
    try:
        assert blocks.choose(kind, measured.append) == short[0]
    finally:
        torch.use_deterministic_algorithms(False)
    assert measured == short


def test_what_a_choice_of_blocks_stands_for(torch: Any) -> None:
    """Up to twice as many rows; neither a larger batch nor arrays of ids."""
    from ntxent.torch._kernels.blocks import kind_of

    rows = torch.zeros(1024, 16)
    kind = kind_of("forward", rows[:512], rows[:64], by_ids=False)
    assert kind_of("forward", rows[:1023], rows[:127], by_ids=False) == kind
    assert kind_of("forward", rows, rows[:64], by_ids=False) != kind
    assert kind_of("forward", rows[:512], rows[:128], by_ids=False) != kind
    assert kind_of("forward", rows[:512], rows[:64], by_ids=True) != kind


@pytest.mark.parametrize("kernel", ["forward", "backward"])
def test_the_program_that_tries_blocks(
    backend: Any, torch: Any, kernel: str, monkeypatch: Any
) -> None:
    """It launches what it times; which cuts are fast only a GPU can say."""
    from benchmarks import gpu_blocks
    from ntxent.torch._kernels import launch
    from ntxent.torch._kernels.block_lists import Blocks

    monkeypatch.setattr(launch, "choose", None)  # which it replaces
    run = gpu_blocks.run("half", kernel, 32, 64, Blocks(32, 32, 32, 32, 1, 1), backend.device)
    found = run()
    assert (found.lse if kernel == "forward" else found).isfinite().all()


def test_a_cut_that_a_device_has_no_memory_for_is_passed_over(monkeypatch: Any) -> None:
    from triton.runtime.errors import OutOfResources

    from ntxent.torch._kernels import blocks

    def milliseconds(run: Any) -> float:
        if run.args[0] == "too large":
            raise OutOfResources(200, 100, "shared memory")
        return {"slow": 2.0, "as fast": 1.97, "fast": 1.0}[run.args[0]]

    monkeypatch.setattr(blocks, "milliseconds", milliseconds)
    for short, best in (
        (["too large", "slow", "fast"], "fast"),
        (["slow", "as fast"], "slow"),
        (["slow", "too large"], "slow"),
    ):
        assert blocks.fastest(short, print) == best
    with pytest.raises(OutOfResources):
        blocks.fastest(["too large", "too large"], print)
