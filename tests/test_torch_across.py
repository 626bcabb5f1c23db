"""One batch over several processes: the mean of losses and of gradients is one process's."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import numpy as np
import pytest

import _shards
from _tolerances import assert_within, relative_error, tolerance

pytestmark = pytest.mark.only("torch")

try:
    import torch

    import across_torch as work
    import faults_torch as broken
    import trained_torch as trained
    import transformed_torch as transformed
    from benchmarks.world import FailedError, world
except ImportError:  # and then there is no test of this file either
    STRATEGIES: tuple[tuple[str, str], ...] = ()
else:
    STRATEGIES = work.STRATEGIES

SIZES = (*_shards.EVEN, *_shards.UNEVEN)


@cache
def every_case(sizes: tuple[int, ...]) -> Any:
    return world(len(sizes), work.every_case, sizes)


@pytest.mark.parametrize("strategy", STRATEGIES, ids="-".join)
@pytest.mark.parametrize("name", _shards.LOSSES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_it_is_the_loss_of_the_whole_batch(
    sizes: tuple[int, ...], name: str, strategy: tuple[str, str], note_worst: Any
) -> None:
    """Different data everywhere; negatives and ids too; shards of one size or not."""
    found = [result[name, strategy] for result in every_case(sizes)]
    loss, gradient = _shards.errors(name, sizes, *zip(*found, strict=True))
    assert_within(loss, _shards.LOSS, "loss")
    assert_within(gradient, _shards.GRADIENT, "gradient")
    note_worst("across processes, loss", "torch", loss / _shards.LOSS)
    note_worst("across processes, gradient", "torch", gradient / _shards.GRADIENT)


def test_both_exchanges_give_the_same_bits_and_float32_its_digits() -> None:
    sizes = (40, 700)  # of one tile and of several
    gathered, passed = (
        world(2, work.nothing_but_float32, sizes, exchange) for exchange in ("gather", "ring")
    )
    for one, other in zip(gathered, passed, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    views = [
        torch.cat([work.rows(rank, size)[view] for rank, size in enumerate(sizes)]).double()
        for view in range(2)
    ]
    views = [x.detach().requires_grad_() for x in views]
    expected = work.losses.nt_xent(*views, temperature=0.1)
    expected.backward()
    mean = np.mean([loss for loss, *_ in gathered])
    assert_within(relative_error(mean, expected.item()), tolerance("float32", "loss", 0.1), "loss")
    for view, whole in enumerate(views):
        got = np.concatenate([grads[view] for _, *grads in gathered]) / 2
        error = np.abs(got - whole.grad.numpy()).max() / whole.grad.abs().max().item()
        assert_within(error, tolerance("float32", "gradient", 0.1), "gradient")


@pytest.mark.parametrize("how", ["plain", "ring", "no_sync", "compile"])
def test_ddp_has_the_gradient_of_one_process(how: str) -> None:
    """Encoder and learned temperature; gradients accumulated over two batches; compiled."""
    sizes = (5, 5) if how == "compile" else (4, 6)
    found = world(2, trained.ddp, sizes, how)
    expected = trained.whole_batch(sizes, steps=2 if how == "no_sync" else 1)
    for grads in found:
        for got, want in zip(grads, expected, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_fsdp_has_the_gradient_of_one_process() -> None:
    sizes = (5, 4)
    expected = trained.whole_batch(sizes)[:-1]
    for grads in world(2, trained.fsdp, sizes):
        for got, want in zip(grads, expected, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_autocast() -> None:
    """The loss is float32; each gradient has its view's dtype, float32 here before the cast."""
    sizes = (6, 6)
    found = world(2, work.autocast, sizes)
    views = [
        torch.cat([work.rows(rank, size)[view] for rank, size in enumerate(sizes)]).bfloat16()
        for view in range(2)
    ]
    expected = work.losses.nt_xent(*views, temperature=0.1).item()
    assert all(dtype == torch.float32 for dtype, *_ in found)
    assert all(grad.dtype == torch.float32 and grad.abs().max() > 0 for *_, grad in found)
    assert_within(
        relative_error(np.mean([loss for _, loss, _ in found]), expected),
        tolerance("float32", "loss", 0.1),
        "loss",
    )


def test_a_group_of_some_processes() -> None:
    sizes = (3, 4)
    first, outside, second = world(3, work.subgroup, sizes)
    assert "TypeError: group must be True or a torch.distributed.ProcessGroup" in outside
    loss, gradient = _shards.errors("nt_xent, ids", sizes, *zip(first, second, strict=True))
    assert_within(loss, _shards.LOSS, "loss")
    assert_within(gradient, _shards.GRADIENT, "gradient")


UNLIKE = r"ValueError: all processes must make the same call.*on process 0.*on process 1"
REFUSED = r"RuntimeError: process 1 of 2 refused its shard.*{}"


UNLIKE_FAULTS = ("d", "dtype", "requires_grad", "option", "temperature", "exchange", "grad mode")
UNLIKE_FAULTS += ("the last of many",)
ELSEWHERE = dict.fromkeys(UNLIKE_FAULTS, UNLIKE) | {
    "shape": REFUSED.format(r"ValueError: all views must have one shape"),
    "not a tensor": REFUSED.format("TypeError: view 2 must be a torch.Tensor"),
    "empty": REFUSED.format("ValueError: view 1 must have at least one row"),
    "no such exchange": REFUSED.format('ValueError: exchange must be one of "gather", "ring"'),
    "overflow": REFUSED.format("ValueError: temperature must be positive and finite"),
}


def test_what_is_wrong_on_one_process_is_an_error_on_all() -> None:
    """At once, and none is left waiting; the next call is served."""
    there, here = world(2, broken.faults, wait=60)
    assert set(there) == set(ELSEWHERE)
    for fault, elsewhere in ELSEWHERE.items():
        assert re.search(elsewhere, there[fault]), there[fault]
        assert re.search(elsewhere.removeprefix(REFUSED.format("")), here[fault]), here[fault]


def test_an_unlike_shard_in_a_compiled_call_is_an_error_on_all() -> None:
    for told in world(2, broken.compiled_fault):
        assert "the shards of all processes must have one dtype and rows of one length" in told


@pytest.mark.parametrize("how", ["dies", "dies_at_work"])
def test_a_process_that_dies_takes_the_others_with_it(how: str) -> None:
    """Within the group's timeout, which is 10 seconds here."""
    told = world(3, getattr(broken, how), timeout=10, wait=60, lost=1)
    assert len(told) == 2
    assert all(x.startswith(("RuntimeError", "DistBackendError")) for x in told), told


def test_a_process_that_is_absent_is_waited_for_no_longer_than_the_timeout() -> None:
    told, _ = world(2, broken.absent, timeout=4, wait=60)
    assert told.startswith(("RuntimeError", "DistBackendError")), told


@pytest.mark.parametrize("pair", [False, True])
def test_few_rows_have_a_positive(pair: bool) -> None:
    """None, and the loss is 0 everywhere; two on three processes, and the mean is over two."""
    sizes = (3, 2, 3)
    z, labels = map(torch.tensor, _shards.few_positives(sizes, pair))
    z.requires_grad_()
    expected = (z * 0).sum()
    if pair:
        expected = work.losses.sup_con(z, labels, implementation="dense")
    expected.backward()
    for found in zip(*world(3, work.few_positives, sizes, pair), strict=True):
        values, grads = zip(*found, strict=True)
        assert abs(np.mean(values) - expected.item()) <= _shards.LOSS
        assert np.abs(np.concatenate(grads) / 3 - z.grad.numpy()).max() <= _shards.GRADIENT


def test_nan_on_one_process_reaches_all() -> None:
    assert np.isnan(world(3, work.with_nan)).all()


@pytest.mark.parametrize("sizes", [(4, 4), (3, 5)], ids=str)
def test_compiled_as_a_single_graph(sizes: tuple[int, ...]) -> None:
    for found in world(2, transformed.compiled, sizes):
        assert set(found) == set(transformed.COMPILED)
        for name, error in found.items():
            assert_within(error, 1e-13, f"{name}, compiled against eager")


REFUSALS = {
    "tiled": "NotImplementedError: (forward mode|a second derivative) of a loss across processes",
    "dense": "RuntimeError: In order to use an autograd.Function with functorch transforms",
}


@pytest.mark.parametrize("implementation", ["tiled", "dense"])
def test_derivatives_beyond_the_first(implementation: str) -> None:
    """Second ones by autograd go through the dense form; forward mode is refused."""
    sizes = (3, 4)
    found = world(2, transformed.derivatives, sizes, implementation)
    for _, *refused in found:
        for told in refused:
            assert re.match(REFUSALS[implementation], told), told
    views = [
        torch.cat(
            [work.rows(rank, size, dtype=torch.float64)[view] for rank, size in enumerate(sizes)]
        ).requires_grad_()
        for view in range(2)
    ]
    (first,) = torch.autograd.grad(
        work.losses.nt_xent(*views, temperature=0.2), views[0], create_graph=True
    )
    (expected,) = torch.autograd.grad((first * views[0].detach().cos()).sum(), views[0])
    got = torch.cat([second for second, *_ in found]) / 2
    assert_within(((got - expected).abs().max() / expected.abs().max()).item(), 1e-10, "second")


def test_functional_gradients_and_vmap() -> None:
    for gradient, values in world(2, transformed.by_functions, (3, 4)):
        assert_within(gradient, 1e-14, "func.grad")
        assert_within(values, 1e-14, "vmap")


@pytest.mark.parametrize("sizes", [(5, 2000), (2000, 5)], ids=str)
def test_sides_of_which_one_needs_a_shift(sizes: tuple[int, int]) -> None:
    """1/tau is 40: with the logarithm of 4000 past what needs none, with that of 10 below it."""
    for loss, *gradients in world(2, work.unlike_sides, *sizes):
        assert_within(loss, tolerance("float32", "loss", 1 / 40), "loss")
        for gradient in gradients:
            assert_within(gradient, 2 * tolerance("float32", "gradient", 1 / 40), "gradient")


def test_integers_of_every_kind() -> None:
    for found in world(2, work.short_ids):
        assert len(set(found)) == 1


def test_a_ring_holds_no_array_of_all_rows() -> None:
    """256 rows of 128 on each of 4 processes, tiles of 256 x 256."""
    for gathered, passed in world(4, work.largest):
        assert gathered == 4 * 256 * 128
        assert passed == 256 * 256


def test_what_group_and_exchange_may_be() -> None:
    from ntxent.torch import NTXentLoss, nt_xent

    views = work.rows(0, 3)
    guard = r"init_process_group.*passes group=torch\.distributed\.is_initialized\(\)\."
    with pytest.raises(RuntimeError, match=guard):
        nt_xent(*views, group=True)
    with pytest.raises(RuntimeError, match=guard):
        NTXentLoss(group=True)(*views)
    alone = torch.distributed.is_initialized()
    assert alone is False
    assert torch.equal(nt_xent(*views, group=alone), nt_xent(*views))
    assert torch.equal(NTXentLoss(group=alone)(*views), nt_xent(*views))
    with pytest.raises(ValueError, match="needs a group"):
        nt_xent(*views, exchange="ring")
    with pytest.raises(ValueError, match='must be one of "gather", "ring"'):
        nt_xent(*views, exchange="mail")


def test_the_harness_notices_a_process_that_fails() -> None:
    with pytest.raises(FailedError, match="ZeroDivisionError"):
        world(2, work.dividing)
