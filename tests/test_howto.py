"""What the how-to pages say of several processes; all else they assert themselves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from _tolerances import assert_within
from benchmarks.world import world

pytestmark = pytest.mark.only("torch")

PAGE = Path(__file__).parents[1] / "docs/howto/gradient-accumulation.md"


def two_pass_in_one_of_several(rank: int) -> float:
    """The page's own function under DDP, against one process with the whole batch: the error."""
    import torch
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel

    from ntxent.torch import nt_xent

    (source,) = re.findall(
        r"^def two_pass.*?^    return .*?$", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    page: dict[str, Any] = {"torch": torch}
    exec(source, page)  # noqa: S102 the page is ours

    def loss_of(rows: Any, group: bool | None = None) -> Any:
        z1, z2 = torch.cat(list(rows), 1)
        return nt_xent(z1, z2, temperature=0.5, group=group)

    def gradient() -> Any:
        found = torch.cat([p.grad.flatten() for p in encoder.parameters()])
        encoder.zero_grad()
        return found

    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 16)).double()
    shards = torch.randn(2, 3, 2, 4, 8, dtype=torch.float64)  # process, chunk, view, image
    loss_of([encoder(chunk) for shard in shards for chunk in shard]).backward()
    expected = gradient()
    network = DistributedDataParallel(encoder)
    page["two_pass"](network, shards[rank], lambda rows: loss_of(rows, group=True))
    return float((gradient() - expected).abs().max() / expected.abs().max())


def test_two_passes_under_ddp() -> None:
    for error in world(2, two_pass_in_one_of_several):
        assert_within(error, 1e-12, "gradient")
