"""What each process does in tests/test_torch_across.py; by hand it prints the table of errors.

    python tests/across_torch.py            loss, how, and the shards of each process
    python tests/across_torch.py --write    and put it into docs/scaling.md

A cell has the error of the mean loss and that of the mean gradient, in float64.
"""

from __future__ import annotations

from typing import Any

import torch

import _shards
from ntxent import torch as losses
from ntxent.torch._processes import group as exchanges

STRATEGIES = (("tiled", "gather"), ("tiled", "ring"), ("dense", "gather"))


def call(name: str, sizes: tuple[int, ...], rank: int, **options: Any) -> Any:
    """This process's loss, and its gradients: of the arrays and of the temperature."""
    case = _shards.shards(name, sizes)
    arrays = [torch.tensor(x, requires_grad=True) for x in case.arrays[rank]]
    temperature = torch.tensor(_shards.TEMPERATURE, dtype=torch.float64, requires_grad=True)
    integers = {key: torch.tensor(x) for key, x in case.integers[rank].items()}
    given = [*arrays, integers.pop("labels")] if "labels" in integers else arrays
    options = {"group": True, "temperature": temperature, **case.options, **integers, **options}
    loss = getattr(losses, case.loss)(*given, **options)
    loss.backward()
    return loss.item(), [x.grad.numpy() for x in arrays], temperature.grad.item()


def every_case(rank: int, sizes: tuple[int, ...]) -> dict[Any, Any]:
    """All losses by all strategies."""
    return {
        (name, strategy): call(name, sizes, rank, implementation=strategy[0], exchange=strategy[1])
        for name in _shards.LOSSES
        for strategy in STRATEGIES
    }


def nothing_but_float32(rank: int, sizes: tuple[int, ...], exchange: str) -> Any:
    """Loss and gradients in float32, as most users have it; shards go in several pieces."""
    exchanges.PIECE_BYTES = 4096
    z1, z2 = rows(rank, sizes[rank])
    loss = losses.nt_xent(z1, z2, temperature=0.1, group=True, exchange=exchange)
    loss.backward()
    return loss.item(), z1.grad.numpy(), z2.grad.numpy()


def rows(rank: int, size: int, dim: int = 16, dtype: torch.dtype = torch.float32) -> Any:
    """Two views of own images, as leaves."""
    rng = torch.Generator().manual_seed(rank)
    views = torch.randn(2, size, dim, generator=rng).to(dtype)
    return [x.clone().requires_grad_() for x in views]


def autocast(rank: int, sizes: tuple[int, ...]) -> Any:
    """Under bfloat16 autocast: the dtypes of loss and gradient, and the loss."""
    z1, z2 = rows(rank, sizes[rank])
    with torch.autocast("cpu", torch.bfloat16):
        loss = losses.nt_xent(z1.bfloat16(), z2.bfloat16(), temperature=0.1, group=True)
    loss.backward()
    return loss.dtype, loss.item(), z1.grad


def subgroup(rank: int, sizes: tuple[int, ...]) -> Any:
    """Group 0 and 2 share a batch; process 1 isn't in their group."""
    group = torch.distributed.new_group([0, 2])
    if rank == 1:
        return error_of(lambda: losses.nt_xent(*rows(rank, 3), group=group))
    place = rank // 2
    return call("nt_xent, ids", sizes, place, group=group)


def error_of(work: Any) -> str:
    """What a call raises."""
    try:
        work()
    except Exception as error:  # noqa: BLE001 any is an answer
        return f"{type(error).__name__}: {error}"
    return "nothing"


def unlike_sides(rank: int, pairs: int, queued: int) -> list[float]:
    """Few pairs and many negatives or the reverse, where one side of a tile needs a shift.

    The differences of tiled and dense: of the loss, and of gradients relative to the largest.
    """
    rng = torch.Generator().manual_seed(rank)
    arrays = [torch.randn(size, 8, generator=rng) for size in (pairs, pairs, queued)]
    found = []
    for implementation in ("tiled", "dense"):
        leaves = [x.clone().requires_grad_() for x in arrays]
        loss = losses.info_nce(
            *leaves, temperature=1 / 40, group=True, implementation=implementation
        )
        found.append([loss.detach(), *torch.autograd.grad(loss, leaves)])
    return [((a - b).abs().max() / b.abs().max()).item() for a, b in zip(*found, strict=True)]


def short_ids(rank: int) -> list[float]:
    """The loss with ids of each integer type."""
    z1, z2 = rows(rank, 5)
    kinds = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    ids = torch.arange(5) // 2 + rank
    return [losses.nt_xent(z1, z2, ids=ids.to(kind), group=True).item() for kind in kinds]


def with_nan(rank: int) -> list[float]:
    """One NaN, on process 1: the losses, gathered and by a ring, and the means of others."""
    z1, z2 = rows(rank, 5)
    if rank == 1:
        z1 = z1.detach().clone()
        z1[2, 3] = float("nan")
        z1.requires_grad_()
    labels = torch.arange(5) // 2
    return [
        *(losses.nt_xent(z1, z2, group=True, exchange=x).item() for x in ("gather", "ring")),
        losses.sup_con(z1, labels, group=True).item(),
        losses.info_nce(z1, z2, symmetric=True, group=True).item(),
        losses.info_nce(z2, z1, group=True).item(),
        losses.info_nce(z2, z2.detach(), z1, group=True).item(),
    ]


def few_positives(rank: int, sizes: tuple[int, ...], pair: bool) -> list[Any]:
    """Loss and gradient of this process, gathered, by a ring and by the dense form."""
    start, size = sum(sizes[:rank]), sizes[rank]
    z, labels = (torch.tensor(x)[start : start + size] for x in _shards.few_positives(sizes, pair))
    found = []
    for implementation, exchange in STRATEGIES:
        own = z.clone().requires_grad_()
        options = {"implementation": implementation, "exchange": exchange}
        loss = losses.sup_con(own, labels, group=True, **options)
        loss.backward()
        found.append((loss.item(), own.grad.numpy()))
    return found


def distributed_tensor(rank: int) -> list[Any]:
    """What is said of one, the loss of its shards, and that of the whole."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    z = torch.arange(12.0).reshape(4, 3).cos() + rank
    mesh = init_device_mesh("cpu", (1,))
    spread = distribute_tensor(z, mesh, [Shard(0)])
    local = spread.to_local()
    shards = [
        losses.nt_xent(local, local.exp(), group=group).item() for group in (True, mesh.get_group())
    ]
    return [
        error_of(lambda: losses.nt_xent(spread, spread)),
        *shards,
        losses.nt_xent(z, z.exp()).item(),
    ]


def largest(rank: int) -> list[int]:
    """How many elements the largest tensor has that is made, gathered and by a ring.

    Of 256 rows of 128 a process; below the operator, where the counter can look.
    """
    from _largest import largest_tensor
    from ntxent._pairs.sides import Side
    from ntxent.torch._pairs.tile import Pairs
    from ntxent.torch._processes.across import Processes
    from ntxent.torch._processes.shards import Shards

    torch.manual_seed(rank)
    rows = torch.nn.functional.normalize(torch.randn(256, 128))
    found = []
    for exchange in ("gather", "ring"):
        across = Processes.of(True, exchange)
        pairs = Pairs(rows, None, 10.0, (across.row_ids(rows), None), True, False)
        with largest_tensor() as counted:
            served = Shards(across, "tiled")
            row, *_ = served.forward(pairs, keep=False)
            side = Side(torch.ones(256), row.divisor)
            served.backward(pairs, side, None, (), by_keys=False)
        found.append(counted.size)
    return found


def dividing(rank: int) -> float:
    """Fails on process 1."""
    return 1 / (1 - rank)


def main() -> None:
    """Print the table."""
    from _benchmarks import world

    cells: Any = {}
    for sizes in (*_shards.EVEN, *_shards.UNEVEN):
        results = world(len(sizes), every_case, sizes)
        for name, strategy in results[0]:
            found = zip(*(result[name, strategy] for result in results), strict=True)
            place = cells.setdefault((name, " ".join(strategy)), {})
            place[sizes] = _shards.errors(name, sizes, *found)
    _shards.show("torch", cells)


if __name__ == "__main__":
    main()
