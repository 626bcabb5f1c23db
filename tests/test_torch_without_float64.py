"""PyTorch on a device without float64, which a mode plays here: it refuses every such tensor."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from _adapters import TorchAdapter, call
from _cases import GRID, Case
from _family import INFO_NCE, SUP_CON, info_nce_truth, sup_con_truth
from _tolerances import assert_within, relative_error, tolerance
from test_accuracy import HALF
from test_accuracy import test_a_loss_of_1e_minus_27_keeps_its_digits as assert_digits
from test_accuracy import test_half_precision_is_no_worse_than_dense as assert_half_precision
from test_accuracy import test_the_hostile_grid as assert_hostile_grid
from test_accuracy import test_the_other_denominators as assert_denominators
from test_family import assert_table
from test_family import test_half_precision_is_no_worse_than_dense as assert_half_family

pytestmark = pytest.mark.only("torch")

try:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
    from torch.utils._pytree import tree_leaves

    import transforms
except ImportError:  # and then there is no test of this file either
    TRANSFORMS: list[str] = []
else:
    # A compiler doesn't work under a mode; it has a test below. In forward mode PyTorch gives plain
    # numbers float64 tangents: any product of a number and a tensor is refused.
    SKIPPED = ("compile", "…", "jvp", "jacfwd", "hessian", "dual_level")
    TRANSFORMS = [
        name for name in transforms.TRANSFORMS if not any(part in name for part in SKIPPED)
    ]

    class Refusal(TorchDispatchMode):
        """No operation is given a float64 tensor, nor makes one."""

        def __torch_dispatch__(
            self, op: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            found = op(*args, **(kwargs or {}))
            for x in tree_leaves((args, kwargs, found)):
                if isinstance(x, torch.Tensor) and x.dtype == torch.float64:
                    msg = f"this device has no float64, and {op} was to take or make it"
                    raise RuntimeError(msg)
            return found


class Played(TorchAdapter):
    """Inputs come from elsewhere, rounded there."""

    def from_numpy(self, array: Any, dtype: str | None = None) -> Any:
        with _disable_current_modes():
            return super().from_numpy(array, dtype)


@pytest.fixture
def device(backend: Any, monkeypatch: Any) -> Iterator[Any]:
    """The adapter of a device without float64."""
    from ntxent.torch._operations import devices

    monkeypatch.setattr(devices, "has_float64", lambda _: False)
    with Refusal():
        yield Played("gpu" if backend.device == "cuda" else "cpu")


def test_the_device_refuses_float64(device: Any) -> None:
    rows = device.from_numpy(np.eye(2), "float32")
    for planted in (
        rows.double,
        lambda: rows.sum(dtype=torch.float64),
        lambda: torch.linalg.vector_norm(rows, dtype=torch.float64),
        lambda: torch.zeros(2, dtype=torch.float64),
        lambda: device.from_numpy(np.eye(2), "float64") + 1,
    ):
        with pytest.raises(RuntimeError, match="no float64"):
            planted()


def test_elsewhere_a_loss_makes_it(device: Any, monkeypatch: Any) -> None:
    """So that the mode would see what it is here for."""
    from ntxent.torch._operations import devices

    monkeypatch.setattr(devices, "has_float64", lambda _: True)
    z = device.from_numpy(np.eye(3), "float32")
    for name, arrays in (("nt_xent", [z, z]), ("info_nce", [z, z]), ("sup_con", [z])):
        options = {"labels": np.zeros(3, np.int64)} if name == "sup_con" else {}
        for implementation in ("dense", "tiled"):
            with pytest.raises(RuntimeError, match="no float64"):
                call(device, name, arrays, options, implementation=implementation)


@pytest.mark.covering(("geometry", "temperature", "implementation"))
@pytest.mark.parametrize("case", GRID, ids=str)
def test_the_hostile_grid(device: Any, implementation: str, case: Case, note_worst: Any) -> None:
    """As float32 elsewhere: loss, rows, gradients and the temperature's."""
    assert_hostile_grid(device, implementation, "float32", case, note(note_worst))


@pytest.mark.covering(("denominator", "temperature", "implementation"))
@pytest.mark.parametrize("denominator", ["one_positive", "negatives"])
@pytest.mark.parametrize("temperature", [0.005, 0.05, 0.5])
@pytest.mark.parametrize("views", [2, 3, 4])
def test_the_other_denominators(
    device: Any, implementation: str, denominator: str, temperature: float, views: int
) -> None:
    assert_denominators(device, implementation, "float32", denominator, temperature, views)


@pytest.mark.covering(("kind", "temperature", "implementation"))
@pytest.mark.parametrize(("kind", "case"), SUP_CON, ids=str)
def test_sup_con(device: Any, implementation: str, kind: str, case: Case, note_worst: Any) -> None:
    truth = sup_con_truth(kind, case, "float32")
    assert_table(device, "sup_con", truth, "float32", case, implementation, note(note_worst))


@pytest.mark.covering(("kind", "temperature", "implementation"))
@pytest.mark.parametrize(("kind", "case"), INFO_NCE, ids=str)
def test_info_nce(device: Any, implementation: str, kind: str, case: Case, note_worst: Any) -> None:
    truth = info_nce_truth(kind, case, "float32")
    assert_table(device, "info_nce", truth, "float32", case, implementation, note(note_worst))


def note(note_worst: Any) -> Any:
    """Under a name of its own."""
    return lambda what, backend, fraction: note_worst(f"without float64: {what}", backend, fraction)


def test_digits_of_a_small_loss(device: Any, implementation: str) -> None:
    assert_digits(device, implementation)


@pytest.mark.covering
@pytest.mark.parametrize(("dtype", "case"), HALF, ids=str)
def test_half_precision(
    device: Any, dtype: str, case: Case, monkeypatch: Any, note_worst: Any
) -> None:
    assert_half_precision(device, dtype, case, monkeypatch, note(note_worst))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["sup_con", "info_nce"])
@pytest.mark.parametrize("temperature", [0.005, 0.1])
def test_half_precision_of_the_family(
    device: Any, name: str, dtype: str, temperature: float, monkeypatch: Any
) -> None:
    assert_half_family(device, name, dtype, temperature, monkeypatch)


LABELS = np.array([4, 4, 9, 4, 7, 9])
IDS = np.array([0, 1, 0, 2, 3, 4])
# What the grids leave out: ids, rows without any positive, rows as they are.
OTHERS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "nt_xent, ids": ("nt_xent", 2, {"ids": IDS}),
    "nt_xent, ids, negatives": ("nt_xent", 3, {"ids": IDS, "denominator": "negatives"}),
    "nt_xent, as it is": ("nt_xent", 3, {"normalize": False}),
    "sup_con, no positive": ("sup_con", 1, {"labels": np.arange(6)}),
    "sup_con, as it is": ("sup_con", 1, {"labels": LABELS, "normalize": False}),
    "info_nce, as it is": ("info_nce", 3, {"symmetric": True, "normalize": False}),
}


@pytest.mark.filterwarnings("ignore:sup_con got a batch")
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", OTHERS)
def test_what_the_grids_leave_out(
    device: Any, implementation: str, name: str, reduction: str
) -> None:
    """Value and gradients under an upstream of its own for every row."""
    function, count, options = OTHERS[name]
    rng = np.random.default_rng(0)
    inputs = [x.astype(np.float32) for x in rng.standard_normal((3, 6, 5))[:count]]
    weights = rng.standard_normal(6 * count if function == "nt_xent" else 6)

    def fn(*arrays: Any) -> Any:
        given = {**options, "implementation": implementation, "reduction": reduction}
        found = call(device, function, arrays, given, temperature=0.5)
        if reduction != "none":
            return found
        return device.total(found, device.from_numpy(weights, "float32"))

    with elsewhere():
        exact = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in inputs]
        given = {**options, "implementation": "dense", "reduction": reduction}
        expected = call(TorchAdapter("cpu"), function, exact, given, temperature=0.5)
        if reduction == "none":
            expected = (expected * torch.tensor(weights)).sum()
        truth = [g.numpy() for g in torch.autograd.grad(expected, exact)]
        expected = expected.item()
    value, grads = device.value_and_grad(fn, [device.from_numpy(x) for x in inputs])
    size = max(np.abs(g).max() for g in truth)
    scale = np.abs(weights).sum() if reduction == "none" else 0
    assert value.dtype == np.float32
    assert_within(relative_error(value, expected, scale), tolerance("float32", "loss", 0.5), "loss")
    for got, g in zip(grads, truth, strict=True):
        error = relative_error(got, g, size)
        assert_within(error, tolerance("float32", "gradient", 0.5), "gradient")


@contextlib.contextmanager
def elsewhere() -> Iterator[None]:
    """A device with float64."""
    from ntxent.torch._operations import devices

    with _disable_current_modes(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "has_float64", lambda _: True)
        yield


@pytest.mark.parametrize("how", ["dense", "tiled"])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(device: Any, name: str, how: str) -> None:
    """Derivatives of any order, as `test_transforms` has them of float64."""
    transform, plain = transforms.TRANSFORMS[name]
    with elsewhere():
        exact, other = transforms.points(torch.float64)
        expected = plain(transforms.loss_of("dense", other), exact).float()
        x, y = exact.float(), other.float()
    got = transform(transforms.loss_of(how, y), x)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", [None, "dense", "tiled"])
def test_no_graph_of_a_compiler_has_float64(
    backend: Any, how: str | None, monkeypatch: Any
) -> None:
    """Forward and backward."""
    from functorch.compile import make_boxed_func
    from torch._dynamo.backends.common import aot_autograd

    from ntxent.torch._operations import devices

    def inspected(graph: Any, inputs: Any) -> Any:
        found = [x.meta["val"] for x in graph.graph.nodes if "val" in x.meta]
        seen.extend(x.dtype for x in tree_leaves(found) if isinstance(x, torch.Tensor))
        return make_boxed_func(graph.forward)

    def compiled() -> Any:
        torch.compiler.reset()
        seen.clear()
        made = torch.compile(loss, fullgraph=True, backend=aot_autograd(fw_compiler=inspected))
        return transforms.gradient(made, x)

    seen: list[Any] = []
    x, y = transforms.points(torch.float32)
    loss = transforms.loss_of(how, y)
    expected = compiled()
    assert torch.float64 in seen
    monkeypatch.setattr(devices, "has_float64", lambda _: False)
    torch.testing.assert_close(compiled(), expected)
    assert seen
    assert torch.float64 not in seen


def test_across_processes_it_is_refused(device: Any) -> None:
    from ntxent._spec import Options
    from ntxent.torch._operations.backend import OPS

    z = device.from_numpy(np.eye(3), "float32")
    with pytest.raises(NotImplementedError, match="has no float64"):
        OPS.evaluate(None, None, [z], Options(0.5, across=SimpleNamespace()))


def test_which_devices_have_none(monkeypatch: Any) -> None:
    from ntxent.torch._operations.devices import has_float64

    assert has_float64(torch.device("cpu"))
    assert has_float64(torch.device("cuda", 1))
    assert not has_float64(torch.device("mps"))
    for known in (True, False):
        properties = SimpleNamespace(has_fp64=known)
        monkeypatch.setattr(torch.xpu, "get_device_properties", lambda _, p=properties: p)
        assert has_float64(torch.device("xpu", 0)) is known
