"""What DDP makes of popular losses, against one process that holds the whole batch.

python tests/across_peers.py            each use's loss and gradient over those of the whole batch
python tests/across_peers.py --write    and put the table into docs/scaling.md

Each loss is its own yardstick: on one process with the whole batch it is right by definition.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import info_nce as theirs
import torch
from pytorch_metric_learning.losses import NTXentLoss
from pytorch_metric_learning.utils.distributed import DistributedLossWrapper
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import _shards
from _benchmarks import marks, world
from ntxent.torch import info_nce, nt_xent

TEMPERATURE = 0.2
IMAGES = 16  # of each process
NOISE = 0.3  # of the second view, beside pixels of variance 1

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # of two views and the images' numbers


class Result(NamedTuple):
    """Over those of one process: 1, 1, 1 is the contract."""

    loss: float
    length: float
    cosine: float


def metric_learning(wrap: Callable[[Any], Any] = lambda loss: loss) -> Loss:
    """pytorch-metric-learning's, which takes all rows and a label for each."""

    def loss(z1: Tensor, z2: Tensor, numbers: Tensor) -> Tensor:
        found: Tensor = wrap(NTXentLoss(TEMPERATURE))(torch.cat([z1, z2]), numbers.repeat(2))
        return found

    return loss


def of_views(function: Any, **options: Any) -> Loss:
    """A loss that takes the two views."""
    return lambda z1, z2, numbers: function(z1, z2, temperature=TEMPERATURE, **options)


PEER, OTHER = "pytorch-metric-learning `NTXentLoss`", "info-nce-pytorch `info_nce`"
OURS = {f"ntxent `{function.__name__}`": function for function in (nt_xent, info_nce)}
WRAPPERS = {
    "`DistributedLossWrapper`": DistributedLossWrapper,
    "`DistributedLossWrapper`, `efficient=True`": partial(DistributedLossWrapper, efficient=True),
}
# Each loss as one process calls it on the whole batch, and as each of several calls it on its shard
WHOLE = {PEER: metric_learning(), OTHER: of_views(theirs.info_nce)}
WHOLE |= {name: of_views(function) for name, function in OURS.items()}
USES = {(name, "as in one process"): loss for name, loss in WHOLE.items()}
USES |= {(PEER, how): metric_learning(wrapper) for how, wrapper in WRAPPERS.items()}
USES |= {(name, "`group=True`"): of_views(loss, group=True) for name, loss in OURS.items()}


def encoder() -> Any:
    """The same everywhere."""
    torch.manual_seed(0)
    layers = torch.nn.Linear(16, 8), torch.nn.Tanh(), torch.nn.Linear(8, 6)
    return torch.nn.Sequential(*layers).double()


def batch(rank: int) -> tuple[Tensor, Tensor]:
    """Two views of a process's own images, (2, N, 16), and their numbers, which no other has."""
    rng = torch.Generator().manual_seed(rank)
    image, noise = torch.randn(2, IMAGES, 16, generator=rng, dtype=torch.float64)
    return torch.stack([image, image + NOISE * noise]), rank * IMAGES + torch.arange(IMAGES)


def trained(model: Any, loss: Loss, images: Tensor, numbers: Tensor) -> tuple[float, Tensor]:
    """The loss, and the gradient of all parameters in one row."""
    value = loss(*model(images), numbers)
    value.backward()
    return value.item(), torch.cat([x.grad.flatten() for x in model.parameters()])


def every_use(rank: int) -> dict[Any, tuple[float, Tensor]]:
    """A process's loss, and the gradient that DDP leaves, the mean over processes."""
    return {
        name: trained(DistributedDataParallel(encoder()), use, *batch(rank))
        for name, use in USES.items()
    }


def compared(processes: int) -> dict[tuple[str, str], Result]:
    """Every use in so many processes, over one process with all their images."""
    found = world(processes, every_use)
    images, numbers = zip(*map(batch, range(processes)), strict=True)
    results = {}
    for name in USES:
        whole = WHOLE[name[0]]
        truth, expected = trained(encoder(), whole, torch.cat(images, 1), torch.cat(numbers))
        loss = sum(result[name][0] for result in found) / processes
        gradient = found[0][name][1]  # all have the same
        lengths = gradient.norm(), expected.norm()
        cosine = gradient @ expected / (lengths[0] * lengths[1])
        results[name] = Result(loss / truth, (lengths[0] / lengths[1]).item(), cosine.item())
    return results


def table(found: dict[int, dict[tuple[str, str], Result]]) -> str:
    """A line for each use; in each cell, one number for each count of processes."""
    heads = ["loss / true", "length of gradient / true", "cosine to the true gradient"]
    counts = " and ".join(map(str, found))
    lines = [
        f"| {IMAGES} images in each of {counts} processes | used | {' | '.join(heads)} |",
        "|---|---|---|---|---|",
    ]
    for name, how in USES:
        results = [result[name, how] for result in found.values()]
        cells = [", ".join(f"{x:.3f}" for x in each) for each in zip(*results, strict=True)]
        lines.append(f"| {name} | {how} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    text = table({processes: compared(processes) for processes in (2, 4)})
    print(text)
    if "--write" in sys.argv[1:]:
        marks.write(_shards.PAGE, peers=text)


if __name__ == "__main__":
    main()
