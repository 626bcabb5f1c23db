"""Triton's kernels, on a GPU or in Triton's interpreter: against float64 and the plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from _cases import GRID, Case
from _family import INFO_NCE, SUP_CON, info_nce_truth, sup_con_truth
from _tolerances import EPSILON, assert_within
from _triton_pairs import assert_right, pairs_of, rows_of
from test_accuracy import test_the_hostile_grid as assert_hostile_grid
from test_family import assert_table

pytestmark = [pytest.mark.only("torch"), pytest.mark.kernels]

# Rows and columns, elements of a row: one block and many, ragged against both, rows in parts.
SIZES = [(1, 2, 1), (3, 70, 5), (64, 64, 64), (65, 33, 129), (130, 40, 300), (40, 20, 1024)]
SIZES += [(20, None, 16), (65, None, 100), (150, None, 513)]
TEMPERATURES = (0.005, 0.1, 1.0)
PRODUCTS = ("float32", "tf32", "bfloat16", "float16")
# In the interpreter a case takes a second or two: some of them run there, and all with `--all`.


@pytest.fixture
def torch(backend: Any) -> Any:
    assert backend.name == "torch"
    backend.torch.manual_seed(0)
    yield backend.torch
    backend.torch.set_float32_matmul_precision("highest")


def test_rows_are_rounded_for_tf32(torch: Any) -> None:
    """To nearest, where the matrix units would cut off; what isn't a number stays so."""
    from ntxent.torch._kernels.launch import factors

    torch.set_float32_matmul_precision("high")
    rows = torch.randn(70, 16)
    rows[0, :5] = torch.tensor([0.0, float("inf"), -float("inf"), float("nan"), 1e-40])
    nan = torch.tensor([2**31 - 1], dtype=torch.int32).view(torch.float32)  # as GPUs make it
    rows[1, 0] = nan[0]
    found = factors(rows, None)
    assert torch.equal(found.isnan(), rows.isnan())
    assert torch.equal(found.isinf(), rows.isinf())
    normal = rows.abs() > 1e-30
    off = (found - rows).abs()[normal & rows.isfinite()] / rows.abs()[normal & rows.isfinite()]
    assert 2.0**-13 < off.max() <= 2.0**-11
    assert not (found.view(torch.int32)[rows.isfinite()] & (2**13 - 1)).any()


@pytest.mark.covering
@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("ids", ["period", "arrays"])
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_both_kernels(
    backend: Any,
    torch: Any,
    size: Any,
    temperature: float,
    product: str,
    ids: str,
    note_worst: Any,
) -> None:
    assert_right(torch, pairs_of(backend, size, temperature, ids), product, note_worst)


@pytest.mark.parametrize("capability", [(8, 0), (9, 0)], ids=str)
@pytest.mark.parametrize("product", ["half", "tf32", "float32"])
def test_the_blocks_that_gpus_take(
    backend: Any, torch: Any, product: str, capability: Any, note_worst: Any, monkeypatch: Any
) -> None:
    """All of the lists: several ragged blocks of rows and columns, ragged parts of a row."""
    from ntxent.torch._kernels import launch
    from ntxent.torch._kernels.block_lists import BACKWARD, FORWARD, generation

    if backend.device == "cuda":  # another's blocks may need more memory than it has
        capability = generation(torch.cuda.get_device_capability())
    given: dict[str, Any] = {}
    monkeypatch.setattr(launch, "choose", lambda kind, run: given[kind.kernel])
    forward, backward = (lists[capability][product] for lists in (FORWARD, BACKWARD))
    for longest in sorted({*forward, *backward}):
        served = [lists[min(x for x in lists if longest <= x)] for lists in (forward, backward)]
        for place in range(max(map(len, served))):
            for kernel, blocks in zip(("forward", "backward"), served, strict=True):
                given[kernel] = blocks[place % len(blocks)]
            pairs = pairs_of(backend, (150, 140, min(longest, 272) - 7), 0.01, "arrays")
            assert_right(torch, pairs, "bfloat16" if product == "half" else product, note_worst)


@pytest.mark.parametrize("cut", [(16, 32), (32, 16), (16, 64)], ids=str)
@pytest.mark.parametrize("period", [1, 7, 31, 32, 33, 100, 1000])
def test_only_tiles_without_a_missing_pair_do_without_masks(
    backend: Any, torch: Any, period: int, cut: tuple[int, int]
) -> None:
    """All of them, against all pairs of each: cuts that aren't square, periods of any size."""
    from _mixed import ask

    height, width = cut
    columns, skipped = 150, 0
    for own in range(0, 128, height):
        for other in range(0, columns, width):
            found = torch.zeros(1, dtype=torch.int32, device=backend.device)
            ask[1,](found, own, other, columns, period, *cut)
            rows, keys = np.ogrid[own : own + height, other : other + width]
            missing = (keys >= columns) | (rows % period == keys % period)
            assert bool(found.item()) == missing.any(), (own, other)
            skipped += not missing.any()
    assert skipped or period < sum(cut)


@pytest.mark.parametrize("keys", [True, False])
def test_tiles_with_masks_and_without(
    backend: Any, torch: Any, keys: bool, note_worst: Any
) -> None:
    """Ids that meet in a few of the tiles, as those of a large batch do."""
    pairs = pairs_of(backend, (300, 290 if keys else None, 33), 0.05, "period")
    pairs = pairs._replace(ids=(145, None))
    assert_right(torch, pairs, "float32", note_worst)


@pytest.mark.parametrize("upstream", [(0.0, 0.0), (1e-36, 1e-38), (1e30, 1.0), (1.0, 0.0)], ids=str)
def test_upstreams_of_any_size(backend: Any, torch: Any, upstream: tuple[float, float]) -> None:
    """A gradient is in proportion to its upstreams, which may be far apart."""
    from ntxent._pairs.sides import Side
    from ntxent.torch._kernels import launch

    pairs = pairs_of(backend, (40, 30, 16), 0.1, "period")
    found = launch.forward(pairs, keep=False)[:2]
    largest = max(upstream)

    def gradients(*factors: float) -> Any:
        sides = [
            Side(torch.full_like(x.lse, f), x.divisor) for x, f in zip(found, factors, strict=True)
        ]
        return launch.backward(pairs, *sides, (), True)

    ones = gradients(1.0, 0.0), gradients(0.0, 1.0)
    for got, by_row, by_column in zip(gradients(*upstream), *ones, strict=True):
        want = by_row.double() * upstream[0] + by_column.double() * upstream[1]
        error = (got - want).abs().max().item()
        assert_within(
            error, 1e-5 * largest * max(by_row.abs().max(), by_column.abs().max()).item(), "it"
        )


@pytest.mark.covering
@pytest.mark.parametrize("case", GRID, ids=str)
def test_the_hostile_grid(backend: Any, case: Case, note_worst: Any) -> None:
    assert_hostile_grid(backend, "triton", "float32", case, note_worst)


@pytest.mark.covering
@pytest.mark.parametrize(("kind", "case"), SUP_CON, ids=str)
def test_sup_con(backend: Any, kind: str, case: Case, note_worst: Any) -> None:
    truth = sup_con_truth(kind, case, "float32")
    assert_table(backend, "sup_con", truth, "float32", case, "triton", note_worst)


@pytest.mark.covering
@pytest.mark.parametrize(("kind", "case"), INFO_NCE, ids=str)
def test_info_nce(backend: Any, kind: str, case: Case, note_worst: Any) -> None:
    truth = info_nce_truth(kind, case, "float32")
    assert_table(backend, "info_nce", truth, "float32", case, "triton", note_worst)


@pytest.mark.parametrize("autocast", ["bfloat16", "float16"])
@pytest.mark.parametrize("view_dtype", ["float32", "bfloat16", "float16"])
def test_autocast_lowers_the_product_alone(
    backend: Any, torch: Any, view_dtype: str, autocast: str
) -> None:
    """Loss and sums stay float32, the gradient has the views' dtype; the error is the product's."""
    from ntxent.torch import nt_xent

    temperature, views = 0.1, [rows_of(backend, 70, 32) for _ in range(2)]
    views = [x.to(getattr(torch, view_dtype)).requires_grad_() for x in views]
    found = []
    for enabled in (False, True):
        with torch.autocast(backend.device, getattr(torch, autocast), enabled=enabled):
            loss = nt_xent(*views, temperature=temperature, implementation="triton")
        assert loss.dtype == torch.float32
        found.append((loss, *torch.autograd.grad(loss, views)))
    (exact, *exact_grads), (loss, *grads) = found
    epsilon = EPSILON[autocast]
    assert not torch.equal(loss, exact)
    # a similarity is off by less than an epsilon, as both its rows are rounded by half of one
    assert_within(abs((loss - exact) / exact).item(), epsilon / temperature / 4, "loss")
    for got, expected in zip(grads, exact_grads, strict=True):
        assert got.dtype == getattr(torch, view_dtype)
        error = ((got - expected).abs().max() / expected.abs().max()).item()
        assert_within(error, epsilon / temperature, "gradient")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_data_shows_in_the_loss(backend: Any, torch: Any, bad: float) -> None:
    from ntxent.torch import nt_xent

    views = [rows_of(backend, 40, 8) for _ in range(2)]
    views[0][3, 2] = bad
    with np.errstate(invalid="ignore"):
        for normalize in (True, False):
            loss = nt_xent(*views, normalize=normalize, implementation="triton")
            assert not loss.isfinite()


def test_a_row_without_any_pair(backend: Any, torch: Any) -> None:
    """Its log-sum-exp is -inf, and it has no gradient."""
    from ntxent._pairs.sides import Side
    from ntxent.torch._kernels import launch

    pairs = pairs_of(backend, (20, 10, 8), 0.1, "period")
    ids = torch.zeros(20, dtype=torch.long, device=backend.device)
    ids[5:] = 1
    pairs = pairs._replace(ids=(ids, torch.zeros_like(ids[:10])))
    row = launch.forward(pairs, keep=False)[0]
    assert (row.lse[:5] == -torch.inf).all()
    assert row.lse[5:].isfinite().all()
    grads = launch.backward(
        pairs, Side(torch.ones_like(row.lse), row.divisor), None, (), by_keys=True
    )
    assert not grads[0][:5].any()
    assert grads[0][5:].any()
    assert all(grad.isfinite().all() for grad in grads)
