"""What docs/scaling.md says of popular losses under DDP: they change there, ntxent's do not."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

pytestmark = [pytest.mark.only("torch"), pytest.mark.extras]


@cache
def compared() -> Any:
    """Loss, length of gradient and cosine of every use, over those of one process."""
    import across_peers  # which imports the peers, and other sessions have none

    return across_peers.compared(2)


def found(how: str) -> dict[str, Any]:
    """The losses that are used so."""
    results = {name: result for (name, used), result in compared().items() if used == how}
    assert results
    return results


def test_ours_with_a_group_are_those_of_the_whole_batch() -> None:
    results = found("`group=True`")
    assert len(results) == 2
    for result in results.values():
        assert max(abs(number - 1) for number in result) < 1e-10


def test_a_loss_of_each_shard_is_another() -> None:
    """Fewer negatives: another number and another direction, whosever loss it is."""
    results = found("as in one process")
    assert len(results) == 4
    for loss, length, cosine in results.values():
        assert loss < 0.8
        assert length < 0.96
        assert cosine < 0.98


def test_a_wrapper_has_the_gradient_and_as_many_times_the_loss_as_processes() -> None:
    for loss, length, cosine in found("`DistributedLossWrapper`").values():
        assert abs(loss - 2) < 1e-10
        assert max(abs(length - 1), abs(cosine - 1)) < 1e-10


def test_its_efficient_form_has_another_gradient() -> None:
    for loss, length, cosine in found("`DistributedLossWrapper`, `efficient=True`").values():
        assert abs(loss - 2) < 1e-10
        assert length > 1.5
        assert cosine < 0.995
