"""PyTorch's transforms, and what else surrounds a loss there: operators, processes, modes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from _largest import largest_tensor
from _torch_towers import quiet, towers  # noqa: F401 every test is quiet

pytestmark = pytest.mark.only("torch")

try:
    import torch

    import transforms
except ImportError:  # and then there is no test of this file either
    NAMES: tuple[str, ...] = ()
else:
    NAMES = transforms.NAMES


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
