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


def encoder() -> Any:
    """The same everywhere."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.Tanh(), torch.nn.Linear(8, 6))


def batch(rank: int, size: int, step: int = 0) -> Any:
    """Own images of a step."""
    rng = torch.Generator().manual_seed(100 * step + rank)
    return torch.randn(2, size, 16, generator=rng)


def whole_batch(sizes: tuple[int, ...], steps: int = 1) -> Any:
    """The gradients of encoder and temperature, mean over the steps, with all images at hand."""
    model, loss = encoder(), losses.NTXentLoss(temperature=0.2, learn_temperature=True)
    for step in range(steps):
        images = torch.cat([batch(rank, size, step) for rank, size in enumerate(sizes)], 1)
        (loss(*model(images)) / steps).backward()
    return [x.grad for x in (*model.parameters(), *loss.parameters())]


class Trained(torch.nn.Module):
    """An encoder and its loss as one module, as DDP wants what is learned."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.encoder = encoder()
        self.loss = losses.NTXentLoss(temperature=0.2, learn_temperature=True, **options)

    def forward(self, images: Any) -> Any:
        return self.loss(*self.encoder(images))


def ddp(rank: int, sizes: tuple[int, ...], how: str) -> list[Any]:
    """The gradients that DistributedDataParallel leaves."""
    model: Any = Trained(group=True, exchange="ring" if how == "ring" else None)
    model = torch.nn.parallel.DistributedDataParallel(model)
    run = torch.compile(model, backend="aot_eager") if how == "compile" else model
    if how == "no_sync":
        with model.no_sync():
            (run(batch(rank, sizes[rank], 0)) / 2).backward()
        (run(batch(rank, sizes[rank], 1)) / 2).backward()
    else:
        run(batch(rank, sizes[rank])).backward()
    return [x.grad for x in model.parameters()]


def fsdp(rank: int, sizes: tuple[int, ...]) -> list[Any]:
    """The gradients that FSDP leaves, put together again."""
    from torch.distributed.fsdp import fully_shard

    model = encoder()
    fully_shard(model)
    losses.nt_xent(*model(batch(rank, sizes[rank])), temperature=0.2, group=True).backward()
    return [x.grad.full_tensor() for x in model.parameters()]


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


COMPILED = ("nt_xent", "nt_xent, ids", "sup_con", "info_nce, symmetric, queue, ids")


def compiled(rank: int, sizes: tuple[int, ...]) -> dict[str, float]:
    """The differences that a compiler makes; its default one once, as it takes its time."""
    backends = ["aot_eager", "aot_eager", "inductor", "aot_eager"]
    return {
        name: difference(rank, name, sizes, backend)
        for name, backend in zip(COMPILED, backends, strict=True)
    }


def difference(rank: int, name: str, sizes: tuple[int, ...], backend: str) -> float:
    """Value and gradient as a single graph, against those without a compiler."""
    case = _shards.shards(name, sizes)
    arrays = [torch.tensor(x, requires_grad=True) for x in case.arrays[rank]]
    integers = [torch.tensor(x) for x in case.integers[rank].values()]
    keys = [key for key in case.integers[rank] if key != "labels"]

    def loss(*given: Any) -> Any:
        options = {**case.options, **dict(zip(keys, given[len(arrays) :], strict=False))}
        given = given if case.loss == "sup_con" else given[: len(arrays)]
        return getattr(losses, case.loss)(*given, group=True, temperature=0.2, **options)

    found = []
    for function in (loss, torch.compile(loss, fullgraph=True, backend=backend)):
        value = function(*arrays, *integers)
        found.append([value.detach(), *torch.autograd.grad(value, arrays)])
    return max((a - b).abs().max().item() for a, b in zip(*found, strict=True))


def derivatives(rank: int, sizes: tuple[int, ...], implementation: str) -> Any:
    """A Hessian's product with a vector, by two reverse passes; what refuses to give it."""
    z1, z2 = rows(rank, sizes[rank], dtype=torch.float64)
    options = {"temperature": 0.2, "group": True, "implementation": implementation}

    def twice() -> Any:
        loss = losses.nt_xent(z1, z2, **options)
        (first,) = torch.autograd.grad(loss, z1, create_graph=True)
        (second,) = torch.autograd.grad((first * z1.detach().cos()).sum(), z1)
        return second

    forward = error_of(
        lambda: torch.func.jvp(lambda x: losses.nt_xent(x, z2, **options), (z1,), (z1,))
    )
    compiled = error_of(lambda: torch.func.hessian(lambda x: losses.nt_xent(x, z2, **options))(z1))
    return twice(), compiled, forward


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


def by_functions(rank: int, sizes: tuple[int, ...]) -> Any:
    """torch.func.grad, and vmap of two batches."""
    z1, z2 = rows(rank, sizes[rank], dtype=torch.float64)
    loss = losses.nt_xent(z1, z2, group=True)
    (expected,) = torch.autograd.grad(loss, z1)
    got = torch.func.grad(lambda x: losses.nt_xent(x, z2.detach(), group=True))(z1.detach())
    both = torch.func.vmap(lambda x: losses.nt_xent(x, z2.detach(), group=True))(
        torch.stack((z1, z1)).detach()
    )
    return (got - expected).abs().max().item(), (both - loss).abs().max().item()


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
