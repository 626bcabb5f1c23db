"""The modules of PyTorch: a temperature that is set, saved, loaded, sharded and begun again."""

from __future__ import annotations

import copy
import math
import pickle
from functools import cache
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.only("torch")

try:
    import sharded_torch as work
    from benchmarks.world import world
except ImportError:  # and then there is no test of this file either
    SHARDED: tuple[str, ...] = ()
else:
    SHARDED = work.SHARDED

NAMES = ("NTXentLoss", "SupConLoss", "InfoNCELoss")


@pytest.fixture
def torch() -> Any:
    import torch

    torch.manual_seed(0)
    return torch


@pytest.fixture(params=NAMES)
def make(request: Any) -> Any:
    """Each class of a module."""
    from ntxent import torch as losses

    return getattr(losses, request.param)


def number(temperature: Any) -> float:
    """A fixed one is a number already."""
    return float(getattr(temperature, "item", lambda: temperature)())


def call(torch: Any, criterion: Any) -> Any:
    """The loss of a small batch."""
    rng = torch.Generator().manual_seed(0)
    z1, z2 = torch.randn(2, 6, 4, generator=rng)
    second = torch.arange(6) // 2 if type(criterion).__name__ == "SupConLoss" else z2
    return criterion(z1, second)


def test_the_temperature_may_be_set(torch: Any, make: Any) -> None:
    """A schedule: of a fixed one, and of a learned one in place, so that optimisers go on."""
    for learned in (False, True):
        criterion = make(temperature=0.5, learn_temperature=learned)
        parameter, saved = criterion.log_temperature, copy.deepcopy(criterion)
        for value in (0.2, np.float64(0.07), 1):
            criterion.temperature = value
            assert number(criterion.temperature) == pytest.approx(float(value), rel=1e-6)
            expected = call(torch, make(temperature=float(value)))
            torch.testing.assert_close(call(torch, criterion), expected, rtol=1e-5, atol=1e-6)
        assert criterion.log_temperature is parameter
        assert number(saved.temperature) == pytest.approx(0.5)
        if learned:
            assert parameter.requires_grad
            call(torch, criterion).backward()
            assert parameter.grad.shape == (1,)


@pytest.mark.parametrize("learned", [False, True])
def test_a_temperature_that_is_set_is_checked(torch: Any, make: Any, learned: bool) -> None:
    criterion = make(temperature=0.5, learn_temperature=learned)
    for bad in (0.0, -0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="temperature must be positive and finite"):
            criterion.temperature = bad
    for wrong in (torch.tensor(0.1), "0.1", None, True):
        with pytest.raises(TypeError, match="temperature must be a number here"):
            criterion.temperature = wrong
    assert number(criterion.temperature) == pytest.approx(0.5)


@pytest.mark.parametrize("learned", [False, True])
def test_fixed_temperature_can_not_be_set(make: Any, learned: bool) -> None:
    criterion = make(learn_temperature=learned)
    with pytest.raises(AttributeError, match=r"criterion\.temperature = 0\.2, whether it is fixed"):
        criterion.fixed_temperature = 0.2
    assert not hasattr(criterion, "fixed_temperature")


SWITCHES = [(name, switch) for name in NAMES for switch in ("learn_temperature", "normalize")]


@pytest.mark.parametrize(("name", "switch"), [*SWITCHES, ("InfoNCELoss", "symmetric")])
def test_switches_are_refused_at_construction(name: str, switch: str) -> None:
    from ntxent import torch as losses

    make = getattr(losses, name)
    for bad in ("yes", "no", 1, None):
        with pytest.raises(TypeError, match=f"{switch} must be True or False; got"):
            make(**{switch: bad})
    make(**{switch: np.True_})


def test_on_the_meta_device_it_is_shown_and_begins_again(torch: Any, make: Any) -> None:
    """`to_empty` leaves whatever is in memory; `reset_parameters` what learning starts from."""
    with torch.device("meta"):
        criterion = make(temperature=0.3, learn_temperature=True)
    assert "temperature=learned, from 0.3," in repr(criterion)
    criterion.to_empty(device="cpu")
    with torch.no_grad():
        criterion.log_temperature.fill_(math.nan)
    criterion.reset_parameters()
    assert criterion.temperature.item() == pytest.approx(0.3)
    assert "temperature=0.3 (learned)" in repr(criterion)
    torch.testing.assert_close(call(torch, criterion), call(torch, make(temperature=0.3)))
    criterion.temperature = 0.2
    criterion.reset_parameters()
    assert criterion.temperature.item() == pytest.approx(0.3)


def test_a_fixed_temperature_is_not_reset(make: Any) -> None:
    criterion = make(temperature=0.3)
    criterion.temperature = 0.2
    criterion.reset_parameters()
    assert criterion.temperature == 0.2


def test_a_learned_temperature_is_a_0d_tensor_of_a_parameter_of_one_element(
    torch: Any, make: Any
) -> None:
    criterion = make(temperature=0.3, learn_temperature=True)
    assert criterion.log_temperature.shape == (1,)
    assert criterion.temperature.shape == ()
    assert f"{criterion.temperature:.3f}" == "0.300"
    criterion.log_temperature.data.clamp_(min=math.log(0.5))
    assert criterion.temperature.item() == pytest.approx(0.5)


def as_saved_before(torch: Any, criterion: Any) -> Any:
    """The same module as it was when the parameter was 0-d."""
    state = copy.deepcopy(criterion.__dict__)
    state["fixed_temperature"] = state.pop("_temperature")
    old = torch.nn.Parameter(criterion.log_temperature.detach().reshape(()))
    state["_parameters"]["log_temperature"] = old
    found = type(criterion).__new__(type(criterion))
    found.__setstate__(state)
    return found


@pytest.mark.parametrize("assign", [False, True])
def test_state_dicts_of_0d_and_of_one_element_load_into_each_other(
    torch: Any, make: Any, assign: bool
) -> None:
    """Strictly; inside another module too, and what was given isn't changed."""
    new = torch.nn.ModuleDict({"loss": make(temperature=0.3, learn_temperature=True)})
    old = torch.nn.ModuleDict({"loss": as_saved_before(torch, new["loss"])})
    for source in (new, old):
        for target in (copy.deepcopy(new), copy.deepcopy(old)):
            target["loss"].temperature = 0.9
            shape = target["loss"].log_temperature.shape
            saved = source.state_dict()
            before = {key: x.shape for key, x in saved.items()}
            target.load_state_dict(saved, strict=True, assign=assign)
            assert {key: x.shape for key, x in saved.items()} == before
            assert target["loss"].log_temperature.shape == shape
            assert torch.equal(call(torch, target["loss"]), call(torch, new["loss"]))
    wrong = {"loss.log_temperature": torch.zeros(2)}
    with pytest.raises(RuntimeError, match=r"size mismatch for loss\.log_temperature"):
        new.load_state_dict(wrong)
    with pytest.raises(RuntimeError, match="Missing key"):
        new.load_state_dict({})


def test_modules_pickled_before_are_served(torch: Any, make: Any) -> None:
    criterion = make(temperature=0.3, learn_temperature=True)
    for found in (
        as_saved_before(torch, criterion),
        pickle.loads(pickle.dumps(as_saved_before(torch, criterion))),
        pickle.loads(pickle.dumps(criterion)),
    ):
        assert torch.equal(call(torch, found), call(torch, criterion))
        assert repr(found) == repr(criterion)
        found.temperature = 0.2
        found.reset_parameters()
        assert found.temperature.item() == pytest.approx(0.3)


@cache
def trained_by_fsdp(sizes: tuple[int, ...]) -> Any:
    return world(len(sizes), work.learned_by_fsdp, sizes)


@pytest.mark.parametrize("group", [None, True], ids=["each its own", "one batch"])
@pytest.mark.parametrize("how", SHARDED)
def test_fsdp_trains_a_learned_temperature_as_one_process_does(
    torch: Any, how: str, group: Any
) -> None:
    """The mean loss, and the mean gradient of encoder and temperature."""
    sizes = (5, 4)
    loss, gradients = work.learned(sizes, group)
    found = [result[how, group] for result in trained_by_fsdp(sizes)]
    torch.testing.assert_close(sum(x for x, _ in found) / 2, loss, rtol=1e-6, atol=1e-7)
    for _, grads in found:
        assert grads["loss.log_temperature"].shape == (1,)
        assert set(grads) == set(gradients)
        for name, grad in grads.items():
            torch.testing.assert_close(grad, gradients[name], rtol=1e-4, atol=1e-6)


def test_a_sharded_temperature_is_shown_set_reset_and_saved() -> None:
    """Without a word between processes, but for what `full_tensor` says."""
    for shown, values, saved in world(2, work.sharded_temperature):
        assert "temperature=learned, from 0.2," in shown
        assert values == pytest.approx([0.2, 0.7, 0.2])
        assert list(saved) == [pytest.approx(math.log(0.2))]
