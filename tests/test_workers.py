"""Tiles side by side: the same sums whoever is faster, and nothing left of it after a call."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

from _adapters import ADAPTERS
from ntxent._pairs import places, sharing

SHAPES = [(1, 1, True), (2, 2, True), (5, 5, True), (8, 8, True), (3, 7, False), (6, 2, False)]


@pytest.mark.parametrize(("rows", "columns", "symmetric"), SHAPES)
def test_rounds_are_all_tiles_and_share_nothing(rows: int, columns: int, symmetric: bool) -> None:
    tiles = list(places.rounds(rows, columns, symmetric))
    assert sorted(tiles) == list(places.grid(rows, columns, symmetric))
    longer = max(rows, columns)
    rounds = defaultdict(list)
    for row, column in tiles:
        rounds[(row + column) % longer].append((row, column))
    for round_ in rounds.values():
        bands = [band for tile in round_ for band in (set(tile) if symmetric else tile[:1])]
        assert len(bands) == len(set(bands))
        assert symmetric or len({column for _, column in round_}) == len(round_)
    assert max(map(len, rounds.values())) == places.at_once(rows, columns, symmetric)


@pytest.fixture(scope="module")
def pool() -> sharing.Pool:
    return sharing.Pool(lambda: None)


def bands_of(row: int, column: int, symmetric: bool) -> set[Any]:
    """What a tile adds to."""
    return {row, column} if symmetric else {("row", row), ("column", column)}


def assert_in_order(
    pool: Any, workers: int, tiles: Sequence[tuple[int, int]], symmetric: bool
) -> None:
    """Each band is added to in the order of the list, by one worker at a time."""
    chance = random.Random(0)
    added: dict[Any, list[Any]] = defaultdict(list)
    held: dict[Any, threading.Lock] = defaultdict(threading.Lock)
    makers = []

    def worker() -> sharing.Work:
        makers.append(threading.current_thread())

        def do(row: int, column: int) -> None:
            bands = bands_of(row, column, symmetric)
            for band in bands:
                assert held[band].acquire(blocking=False)
                added[band].append((row, column))
            time.sleep(chance.random() / 500)
            for band in bands:
                held[band].release()

        return do

    sharing.side_by_side(pool, workers, tiles, symmetric, worker)
    listed = defaultdict(list)
    for tile in tiles:
        for band in bands_of(*tile, symmetric):
            listed[band].append(tile)
    assert added == listed
    assert len(set(makers)) == len(makers) <= workers  # buffers are made once a thread


@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize(("rows", "columns", "symmetric"), SHAPES)
def test_a_band_is_added_to_in_order_and_by_one_at_a_time(
    rows: int, columns: int, symmetric: bool, workers: int, pool: Any
) -> None:
    assert_in_order(pool, workers, list(places.rounds(rows, columns, symmetric)), symmetric)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bands", [3, 12])  # 3: more tiles wait than may be passed over
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_band_is_added_to_in_any_order_of_tiles(
    seed: int, bands: int, symmetric: bool, pool: Any
) -> None:
    chance = random.Random(seed)
    tiles = [(chance.randrange(bands), chance.randrange(bands)) for _ in range(150)]
    assert_in_order(pool, 4, tiles, symmetric)


class Taking:
    """A thread that takes a tile, as one that waits in vain would keep the tests waiting."""

    def __init__(self, turns: sharing.Turns) -> None:
        self.found: list[Any] = []
        self.thread = threading.Thread(target=lambda: self.found.append(turns.take()), daemon=True)
        self.thread.start()

    def waits(self) -> bool:
        self.thread.join(timeout=0.2)
        return self.thread.is_alive()

    def tile(self) -> Any:
        self.thread.join(timeout=30)
        assert not self.thread.is_alive()
        return self.found[0]


def test_a_tile_whose_turn_has_not_come_is_passed_over() -> None:
    turns = sharing.Turns([(0, 0), (0, 1), (2, 2)], True)
    assert Taking(turns).tile() == (0, 0)
    assert Taking(turns).tile() == (2, 2)
    last = Taking(turns)
    assert last.waits()
    turns.give_back(0, 0)
    assert last.tile() == (0, 1)
    assert Taking(turns).tile() is None
    assert (turns.ended, turns.running) == (True, 2)


def test_no_more_tiles_are_passed_over_than_may_be() -> None:
    """One further on waits too, though nothing is in its way."""
    ahead, free = sharing.AHEAD, (sharing.AHEAD + 1,) * 2
    turns = sharing.Turns([*((0, column) for column in range(ahead + 1)), free], True)
    assert Taking(turns).tile() == (0, 0)
    second = Taking(turns)
    assert second.waits()
    turns.give_back(0, 0)
    assert second.tile() == (0, 1)
    assert Taking(turns).tile() == free  # there is room again


def test_a_failure_in_a_worker_is_the_callers(pool: Any) -> None:
    def worker() -> sharing.Work:
        def do(row: int, column: int) -> None:
            if (row, column) == (1, 2):
                msg = "tile (1, 2)"
                raise ZeroDivisionError(msg)

        return do

    tiles = list(places.rounds(8, 8, True))
    for _ in range(3):  # and the pool serves on
        with pytest.raises(ZeroDivisionError, match=r"tile \(1, 2\)"):
            sharing.side_by_side(pool, 2, tiles, True, worker)
    done: list[Any] = []
    work = lambda *tile: done.append(tile)  # noqa: E731
    sharing.side_by_side(pool, 2, tiles, True, lambda: work)
    assert sorted(done) == sorted(tiles)


@pytest.mark.parametrize(
    ("rows", "workers", "expected"),
    [(8192, 2, 512), (1024, 2, 256), (600, 2, 150), (600, 64, 128), (600, 1, 512)],
)
def test_tiles_are_as_small_as_workers_need_them(rows: int, workers: int, expected: int) -> None:
    assert sharing.tile_rows(rows, 512, workers) == expected


def test_where_no_thread_can_be_started_the_caller_does_the_tiles(monkeypatch: Any) -> None:
    def start(thread: threading.Thread) -> None:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    pool = sharing.Pool(lambda: None)
    monkeypatch.setattr(threading.Thread, "start", start)
    done: list[Any] = []
    sharing.side_by_side(
        pool, 2, places.rounds(8, 8, True), True, lambda: lambda *tile: done.append(tile)
    )
    assert done == list(places.rounds(8, 8, True))
    assert not pool.passes
    with pytest.raises(ZeroDivisionError):
        sharing.side_by_side(
            pool,
            2,
            places.rounds(8, 8, True),
            True,
            lambda: lambda *_: 1 / 0,
        )


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.only(name)) for name in ("torch", "numpy")]
)
@pytest.mark.parametrize("images", [1, 63, 64, 65, 127, 128, 129, 200, 255, 256, 257, 300, 513])
@pytest.mark.parametrize("loss", ["nt_xent", "info_nce"])
def test_every_size_from_one_tile_to_several_is_right(name: str, loss: str, images: int) -> None:
    adapter = ADAPTERS[name]("cpu")
    z = np.random.default_rng(images).standard_normal((2, images, 8))
    found, expected = (
        adapter.value_and_grad(
            partial(getattr(adapter.module, loss), implementation=implementation),
            [adapter.from_numpy(view) for view in z],
        )
        for implementation in ("tiled", "dense")
    )
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-12)
    for x, right in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(x, right, rtol=1e-9, atol=1e-13)


@pytest.fixture
def two_workers(monkeypatch: Any) -> Any:
    """PyTorch's module of tiles, two threads for it, and two views of 700 images."""
    import torch

    from ntxent.torch._pairs import tiled as module

    monkeypatch.setattr(module, "most_workers", lambda rows: 2)
    made = torch.Generator().manual_seed(0)
    return module, [torch.randn(700, 16, generator=made, requires_grad=True) for _ in range(2)]


@pytest.mark.only("torch")
def test_a_worker_holds_two_tiles_at_most(two_workers: Any, monkeypatch: Any) -> None:
    """Each waits for the other before it makes one."""
    from ntxent.torch import nt_xent

    tiled, views = two_workers
    made: list[str] = []
    both, new = threading.Barrier(2, timeout=30), tiled.Tiles.new_buffer

    def new_buffer(tiles: Any) -> Any:
        both.wait()
        made.append(threading.current_thread().name)
        return new(tiles)

    monkeypatch.setattr(tiled, "KEEP_BYTES", 0)
    monkeypatch.setattr(tiled.Tiles, "new_buffer", new_buffer)
    nt_xent(*views).backward()
    assert made == ["ntxent worker"] * (2 + 4)  # one a worker forward, two backward


@pytest.mark.only("torch")
def test_in_inference_mode(two_workers: Any) -> None:
    import torch

    from ntxent.torch import nt_xent

    _, views = two_workers
    right = nt_xent(*views)
    with torch.inference_mode():
        assert torch.equal(nt_xent(*views), right)
        rows = nt_xent(*(view.clone() for view in views), reduction="none")
    torch.testing.assert_close(rows.mean(), right.detach())
