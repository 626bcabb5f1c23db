"""Tiles side by side: the same sums whoever is faster, and nothing left of it after a call."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from typing import Any

import pytest

from ntxent import _grid, _workers

SHAPES = [(1, 1, True), (2, 2, True), (5, 5, True), (8, 8, True), (3, 7, False), (6, 2, False)]


@pytest.mark.parametrize(("rows", "columns", "symmetric"), SHAPES)
def test_rounds_are_all_tiles_and_share_nothing(rows: int, columns: int, symmetric: bool) -> None:
    tiles = list(_grid.rounds(rows, columns, symmetric))
    assert sorted(tiles) == list(_grid.grid(rows, columns, symmetric))
    longer = max(rows, columns)
    rounds = defaultdict(list)
    for row, column in tiles:
        rounds[(row + column) % longer].append((row, column))
    for round_ in rounds.values():
        bands = [band for tile in round_ for band in (set(tile) if symmetric else tile[:1])]
        assert len(bands) == len(set(bands))
        assert symmetric or len({column for _, column in round_}) == len(round_)
    assert max(map(len, rounds.values())) == _grid.at_once(rows, columns, symmetric)


@pytest.fixture(scope="module")
def pool() -> _workers.Pool:
    return _workers.Pool(lambda: None)


@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize(("rows", "columns", "symmetric"), SHAPES)
def test_a_band_is_added_to_in_order_and_by_one_at_a_time(
    rows: int, columns: int, symmetric: bool, workers: int, pool: Any
) -> None:
    chance = random.Random(0)
    added: dict[Any, list[int]] = defaultdict(list)
    held: dict[Any, threading.Lock] = defaultdict(threading.Lock)
    makers = []

    def worker() -> _workers.Work:
        makers.append(threading.current_thread())

        def do(number: int, row: int, column: int) -> None:
            bands = {row, column} if symmetric else {("row", row), ("column", column)}
            for band in bands:
                assert held[band].acquire(blocking=False)
                added[band].append(number)
            time.sleep(chance.random() / 500)
            for band in bands:
                held[band].release()

        return do

    tiles = list(_grid.rounds(rows, columns, symmetric))
    _workers.side_by_side(pool, workers, tiles, symmetric, worker)
    assert all(numbers == sorted(numbers) for numbers in added.values())
    assert {number for numbers in added.values() for number in numbers} == set(range(len(tiles)))
    assert len(set(makers)) == len(makers) <= workers  # buffers are made once a thread


def test_a_failure_in_a_worker_is_the_callers(pool: Any) -> None:
    def worker() -> _workers.Work:
        def do(number: int, row: int, column: int) -> None:
            if number == 3:
                msg = "tile 3"
                raise ZeroDivisionError(msg)

        return do

    tiles = list(_grid.rounds(8, 8, True))
    for _ in range(3):  # and the pool serves on
        with pytest.raises(ZeroDivisionError, match="tile 3"):
            _workers.side_by_side(pool, 2, tiles, True, worker)
    done: list[int] = []
    work = lambda number, row, column: done.append(number)  # noqa: E731
    _workers.side_by_side(pool, 2, tiles, True, lambda: work)
    assert sorted(done) == list(range(len(tiles)))


@pytest.mark.parametrize(
    ("rows", "workers", "expected"),
    [(8192, 2, 512), (1024, 2, 256), (600, 2, 150), (600, 64, 128), (600, 1, 512)],
)
def test_tiles_are_as_small_as_workers_need_them(rows: int, workers: int, expected: int) -> None:
    assert _workers.tile_rows(rows, 512, workers) == expected


def test_where_no_thread_can_be_started_the_caller_does_the_tiles(monkeypatch: Any) -> None:
    def start(thread: threading.Thread) -> None:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    pool = _workers.Pool(lambda: None)
    monkeypatch.setattr(threading.Thread, "start", start)
    done: list[int] = []
    _workers.side_by_side(
        pool, 2, _grid.rounds(8, 8, True), True, lambda: lambda number, *_: done.append(number)
    )
    assert done == list(range(36))
    assert not pool.passes
    with pytest.raises(ZeroDivisionError):
        _workers.side_by_side(
            pool,
            2,
            _grid.rounds(8, 8, True),
            True,
            lambda: lambda *_: 1 / 0,
        )
