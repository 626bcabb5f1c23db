"""How Triton's kernels are launched: memory's layout, what is refused, the choice of blocks."""

from __future__ import annotations

from typing import Any

import pytest

from _largest import largest_tensor
from test_triton import pairs_of, rows_of

pytestmark = [pytest.mark.only("torch"), pytest.mark.kernels]


@pytest.fixture
def torch(backend: Any) -> Any:
    assert backend.name == "torch"
    backend.torch.manual_seed(0)
    return backend.torch


def test_strides_are_honoured(backend: Any, torch: Any) -> None:
    """Rows that lie far apart, elements that do, and rows in reverse of the memory's order."""
    from ntxent.torch import _triton

    pairs = pairs_of(backend, (65, 40, 33), 0.1, "period")
    expected = _triton.forward(pairs, keep=False)
    wide = torch.zeros(65, 99, device=backend.device)
    wide[:, ::3] = pairs.queries
    turned = pairs.keys.T.contiguous().T
    for queries, keys in ((wide[:, ::3], turned), (pairs.queries, turned)):
        assert not (queries.is_contiguous() and keys.is_contiguous())
        found = _triton.forward(pairs._replace(queries=queries, keys=keys), keep=False)
        for got, want in zip(found[:2], expected[:2], strict=True):
            assert torch.equal(got.lse, want.lse)


def test_offsets_past_two_to_the_31(backend: Any, torch: Any) -> None:
    """Rows so far apart that an int32 would not reach the last; untouched memory costs nothing."""
    from ntxent.torch import _triton

    pairs = pairs_of(backend, (9, None, 16), 0.1, "period")
    apart = 2**28 + 8
    far = torch.empty(8 * apart + 16, dtype=torch.bfloat16, device=backend.device)
    far = far.as_strided((9, 16), (apart, 1))
    far.copy_(pairs.queries)
    assert far[-1].storage_offset() > 2**31
    near = far.contiguous()
    got, expected = (
        _triton.forward(pairs._replace(queries=rows), keep=False)[0].lse for rows in (far, near)
    )
    assert torch.equal(got, expected)


def test_two_runs_give_the_same_bits_and_nothing_has_n_squared_elements(
    backend: Any, torch: Any
) -> None:
    from ntxent.torch import nt_xent

    views = [rows_of(backend, 150, 8).requires_grad_() for _ in range(2)]
    found = []
    with largest_tensor() as largest:
        for _ in range(2):
            loss = nt_xent(*views, implementation="triton")
            found.append((loss, *torch.autograd.grad(loss, views)))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert largest.size <= 4 * 300 * 8  # the rows, in the bytes that the interpreter copies


def test_what_it_can_not_serve_it_refuses(backend: Any, torch: Any, monkeypatch: Any) -> None:
    from ntxent.torch import _implementations, nt_xent

    views = [rows_of(backend, 5, 3) for _ in range(2)]
    with pytest.raises(RuntimeError, match=r"can't serve.*float64.*convert.*tiled"):
        nt_xent(*(x.double() for x in views), implementation="triton")
    assert nt_xent(*(x.double() for x in views)).dtype == torch.float64
    monkeypatch.setattr(_implementations, "has_triton", lambda: False)
    with pytest.raises(RuntimeError, match=r"can't serve.*pip install \"ntxent\[triton\]\""):
        nt_xent(*views, implementation="triton")
    assert nt_xent(*views).isfinite()  # of itself it takes another


def test_the_choice_of_blocks_is_measured_once(backend: Any, torch: Any, monkeypatch: Any) -> None:
    """The fastest of the list, kept; the first where bits may not depend on a measurement."""
    from triton import knobs

    from ntxent.torch import _triton_blocks

    monkeypatch.setattr(_triton_blocks, "CHOSEN", {})
    monkeypatch.setattr(knobs.runtime, "interpret", False)
    rows = torch.zeros(8, 128, device=backend.device)
    short = _triton_blocks.candidates("forward", _triton_blocks.product_of(rows), 128)
    assert len(short) > 1
    measured = []

    def slow_first(run: Any, **options: Any) -> float:
        run()
        return float(measured[-1] == short[0])

    monkeypatch.setattr(_triton_blocks.triton.testing, "do_bench", slow_first)
    assert _triton_blocks.choose("forward", rows, measured.append) == short[1]
    assert measured == short
    assert _triton_blocks.choose("forward", rows, measured.append) == short[1]
    assert measured == short
    torch.use_deterministic_algorithms(True)
    try:
        assert _triton_blocks.choose("forward", rows, measured.append) == short[0]
    finally:
        torch.use_deterministic_algorithms(False)
    assert measured == short
