"""PyTorch's transforms, and what else surrounds a loss there: compilers, processes, modes."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from _largest import largest_tensor

pytestmark = pytest.mark.only("torch")

try:
    import torch

    import transforms
except ImportError:  # and then there is no test of this file either
    NAMES: tuple[str, ...] = ()
else:
    NAMES = transforms.NAMES

LOSSES = ("nt_xent", "nt_xent, ids", "three views", "temperature", "sup_con", "info_nce", "own")
LOSSES += ("queue",)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Each compilation by itself; what torch deprecates in itself is no concern here."""
    torch.manual_seed(0)
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield


def loss_of(name: str, implementation: str | None) -> Callable[..., Any]:
    """A loss of two towers, whatever their number of rows."""
    from ntxent.torch import info_nce, nt_xent, sup_con

    how = {"implementation": implementation, "temperature": 0.3}

    def numbers(a: Any) -> Any:
        return torch.arange(a.shape[0], device=a.device) // 2

    def learned(a: Any, b: Any) -> Any:
        options = {**how, "temperature": 0.1 + b.square().mean()}
        return nt_xent(a, b, reduction="none", **options).square().sum()

    return {
        "nt_xent": lambda a, b: nt_xent(a, b, **how),
        "nt_xent, ids": lambda a, b: nt_xent(a, b, ids=numbers(a), **how),
        "three views": lambda a, b: nt_xent(
            a, b, a * b, denominator="negatives", reduction="sum", **how
        ),
        "temperature": learned,
        "sup_con": lambda a, b: sup_con(torch.cat([a, b]), numbers(a).repeat(2), **how),
        "info_nce": lambda a, b: info_nce(a, b, symmetric=True, **how),
        "own": lambda a, b: info_nce(a, b, a[:, None] + b[:, None], **how),
        "queue": lambda a, b: info_nce(a, b, a.tanh(), symmetric=True, **how),
    }[name]


def towers(rows: int, dtype: Any = None) -> list[Any]:
    return [torch.randn(rows, 4, dtype=dtype, requires_grad=True) for _ in range(2)]


@pytest.mark.parametrize("implementation", ["dense", "tiled"])
@pytest.mark.parametrize("name", NAMES)
def test_the_table_of_transforms(name: str, implementation: str) -> None:
    """Each cell of docs/pytorch.md is what is found; a wrong number is none of the two."""
    assert transforms.outcome(name, implementation) == transforms.page_cells()[name, implementation]


def test_the_table_lists_every_transform() -> None:
    assert {name for name, _ in transforms.page_cells()} == set(NAMES)


@pytest.mark.kernels
@pytest.mark.parametrize("name", NAMES)
def test_the_table_of_transforms_with_kernels(backend: Any, name: str) -> None:
    cell = transforms.page_cells()[name, "triton"]
    found = transforms.outcome(name, "triton")
    assert found == cell or (cell, found) == ("–", "right")  # a GPU serves what isn't tried here


@pytest.mark.parametrize("implementation", [None, "dense"])
@pytest.mark.parametrize("name", LOSSES)
def test_one_graph_serves_every_batch_size(name: str, implementation: str | None) -> None:
    """torch.compile with its default compiler: no break, no second graph, value and gradients."""
    from torch._dynamo.utils import counters

    loss = loss_of(name, implementation)
    compiled = torch.compile(loss, fullgraph=True, dynamic=True)
    counters.clear()
    for rows in (6, 9, 33):
        a, b = towers(rows)
        got, expected = compiled(a, b), loss(a, b)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
        for x, y in zip(*(torch.autograd.grad(v, (a, b)) for v in (got, expected)), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


@pytest.mark.parametrize(
    ("rows", "dynamic", "implementation", "expected"),
    [
        (256, False, None, False),
        (257, False, None, True),
        (256, True, None, True),
        (256, False, "tiled", True),
    ],
)
def test_a_compiler_fuses_a_batch_of_one_tile(
    rows: int, dynamic: bool, implementation: str | None, expected: bool
) -> None:
    """Of a size that it knows, unless the tiles are asked for by name."""
    loss, called = loss_of("nt_xent", implementation), []

    def compiler(graph: Any, inputs: Any) -> Any:
        del inputs
        called.append("pair_logsumexp" in graph.code)
        return graph

    a, b = towers(rows)
    got = torch.compile(loss, fullgraph=True, dynamic=dynamic, backend=compiler)(a, b)
    assert called == [expected]
    torch.testing.assert_close(got, loss(a, b))


def test_a_compiled_batch_of_many_tiles(monkeypatch: Any) -> None:
    """The operator runs the tiles themselves: their values, and no array of n^2 elements."""
    from ntxent.torch import nt_xent
    from ntxent.torch._pairs import tiled

    a, b = towers(50)
    expected = nt_xent(a, b)
    monkeypatch.setattr(tiled, "TILE", 8)
    got = torch.compile(nt_xent, fullgraph=True)(a, b)
    torch.testing.assert_close(got, expected)
    for x, y in zip(*(torch.autograd.grad(v, (a, b)) for v in (got, expected)), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-6)


def test_compiled_sums_of_classes_give_the_same_bits() -> None:
    """Inductor would add them with atomics, in the order in which threads arrive."""
    from ntxent.torch import sup_con

    x = torch.randn(4096, 64, requires_grad=True)
    labels = torch.arange(4096) % 3
    compiled = torch.compile(sup_con, fullgraph=True)
    losses = [compiled(x, labels) for _ in range(4)]
    grads = [torch.autograd.grad(loss, x)[0] for loss in losses]
    assert all(torch.equal(losses[0], other) for other in losses)
    assert all(torch.equal(grads[0], other) for other in grads)


@pytest.mark.parametrize("learn", [False, True])
def test_a_compiled_module_and_a_training_step(learn: bool) -> None:
    from ntxent.torch import NTXentLoss

    module = NTXentLoss(temperature=0.3, learn_temperature=learn)
    encoder = torch.nn.Linear(4, 4)

    def step(a: Any, b: Any) -> Any:
        return module(encoder(a), encoder(b))

    a, b = (x.detach() for x in towers(9))
    found = []
    for function in (step, torch.compile(step, fullgraph=True)):
        parameters = [*encoder.parameters(), *module.parameters()]
        found.append(torch.autograd.grad(function(a, b), parameters))
    for x, y in zip(*found, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("sides", ["one", "two", "ids"])
def test_opcheck(sides: str, columns: bool) -> None:
    """PyTorch's own test of operators: schema, fake tensors, no memory returned twice."""
    from ntxent.torch._processes.group import ALONE
    from ntxent.torch._transforms import operators
    from ntxent.torch._transforms.class_sums import operator

    queries, keys = (torch.nn.functional.normalize(torch.randn(n, 4)) for n in (9, 7))
    for temperature in (0.5, 0.005):  # without and with a shift of the exponentials
        scale = torch.tensor(1 / temperature, dtype=torch.float64)
        ids = (torch.arange(9) % 4, torch.arange(7) % 4) if sides == "ids" else (None, None)
        given = (
            queries,
            None if sides == "one" and not columns else keys,
            *(scale, *ids, 3, True, columns, None, None, *ALONE),
        )
        found = torch.library.opcheck(operators.pair_logsumexp, given)
        assert set(found.values()) == {"SUCCESS"}
        _, divisor = operators.pair_logsumexp(*given)
        for by_keys in (False, True) if given[1] is not None else (False,):
            more = (divisor, torch.randn_like(divisor), by_keys)
            found = torch.library.opcheck(operators.pair_gradients, (*given, *more))
            assert set(found.values()) == {"SUCCESS"}
    found = torch.library.opcheck(operator, (queries, torch.arange(9) % 4, *ALONE))
    assert set(found.values()) == {"SUCCESS"}


IN_A_WORKER = """
import torch
from torch.utils.data import DataLoader
from ntxent.torch import nt_xent

torch.manual_seed(0)
a, b = torch.randn(2, 300, 4)

def gradient():
    x = a.clone().requires_grad_()
    nt_xent(x, b).backward()
    return x.grad

class Losses(torch.utils.data.Dataset):
    def __len__(self): return 2
    def __getitem__(self, _): return gradient()

expected = gradient()
for found in DataLoader(Losses(), num_workers=1, multiprocessing_context="fork", batch_size=None):
    torch.testing.assert_close(found, expected)
print("the same")
"""


def test_in_a_forked_worker_of_a_data_loader() -> None:
    """Where the parent has used the loss, and its threads, already."""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IN_A_WORKER],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.stdout.strip(), ran.returncode) == ("the same", 0), ran.stderr


def test_vmap_over_labels_ids_and_temperatures() -> None:
    from ntxent.torch import nt_xent, sup_con

    z, other = (x.detach() for x in towers(6))
    labels = torch.tensor([[0, 0, 1, 1, 2, 2], [0, 1, 1, 0, 0, 3]])
    for values, loss in (
        (labels, lambda labels: sup_con(z, labels)),
        (labels, lambda ids: nt_xent(z, other, ids=ids)),
        (torch.tensor([0.1, 0.5]), lambda t: nt_xent(z, other, temperature=t)),
    ):
        got = torch.func.vmap(loss)(values)
        torch.testing.assert_close(got, torch.stack([loss(value) for value in values]))


def test_forward_mode_of_a_zero_row_without_grad_mode() -> None:
    from ntxent.torch import nt_xent

    a, b = (x.detach() for x in towers(5, torch.float64))
    a[2] = 0
    expected = torch.func.jvp(lambda a: nt_xent(a, b), (a,), (b,))[1]
    with torch.no_grad():
        got = torch.func.jvp(lambda a: nt_xent(a, b), (a,), (b,))[1]
    assert expected.isfinite()
    torch.testing.assert_close(got, expected)


def test_func_grad_inside_autocast_changes_nothing() -> None:
    from ntxent.torch import nt_xent

    a, b = (x.detach() for x in towers(50))
    expected = torch.func.grad(lambda a: nt_xent(a, b))(a)
    with torch.autocast("cpu", torch.bfloat16):
        got = torch.func.grad(lambda a: nt_xent(a, b))(a)
    assert torch.equal(got, expected)


def test_forward_mode_refuses_an_implementation_that_can_not_serve() -> None:
    from ntxent.torch import nt_xent

    a, b = (x.detach() for x in towers(5, torch.float64))
    with pytest.raises(RuntimeError, match=r"can't serve"):
        torch.func.jvp(lambda a: nt_xent(a, b, implementation="triton"), (a,), (b,))


def test_forward_mode_makes_no_matrix(monkeypatch: Any) -> None:
    """Strips of rows, as nothing is kept for a backward pass."""
    from ntxent.torch import nt_xent
    from ntxent.torch._pairs import dense

    monkeypatch.setattr(dense, "STRIP", 8)
    a, b = (x.detach() for x in towers(200))
    with largest_tensor() as largest:
        torch.func.jvp(lambda a: nt_xent(a, b), (a,), (b,))
    assert 200 * 4 <= largest.size <= 400 * 8


@pytest.mark.kernels
def test_float32_products_obey_their_switch(backend: Any) -> None:
    """The kernels' products do; a CPU's are PyTorch's own (`addmm`)."""
    from ntxent.torch._kernels.blocks import product_of

    before = torch.get_float32_matmul_precision()
    try:
        for switch, product in (("highest", "float32"), ("high", "tf32"), ("medium", "tf32")):
            torch.set_float32_matmul_precision(switch)
            assert product_of(torch.zeros(1)) == product
            assert product_of(torch.zeros(1, dtype=torch.bfloat16)) == "half"
    finally:
        torch.set_float32_matmul_precision(before)
