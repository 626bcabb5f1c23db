"""What each process does in tests/test_torch_across.py; by hand it prints the table of errors.

python tests/across_torch.py            loss x strategy x number of processes
python tests/across_torch.py --write    and put it into docs/scaling.md
"""

from __future__ import annotations

from typing import Any

import torch

import _shards
from ntxent import torch as losses

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
