"""Tiles side by side: each worker takes whole tiles, and nothing inside a tile is parallel.

An operation on one tile takes some hundred microseconds. Shared among threads, each would begin
and end with all of them waiting for the slowest, ten times a tile; and where other programs use the
cores too, the slowest is a thread that isn't running at all. A worker that takes whole tiles waits
for another only where both would add to the same rows.

Nothing here knows a framework; a backend says what its threads must be told when they start.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from queue import SimpleQueue

Tile = tuple[int, int]  # its row and its column
Work = Callable[[int, int], None]

AHEAD = 32  # tiles that may be passed over
LEAST = 128  # rows of a tile; in a smaller one Python's part of the time shows


def tile_rows(rows: int, most: int, workers: int) -> int:
    """How many rows a tile may have if each of so many workers is to find rows of its own."""
    if workers == 1:
        return most
    return min(most, max(LEAST, -(-rows // (2 * workers))))


def lanes(bands: int, columns: int, workers: int) -> int:
    """How many times each band of rows is there, so that each worker finds one of its own.

    Few queries against many keys are few bands, and tiles that share one go one after the other.
    So a band has lanes: a lane has columns of its own, its own sums and its own gradient, which are
    added up at the end.
    """
    return max(1, -(-min(workers, columns) // bands))


class Turns:
    """Tiles, each for the next worker that is free; those that share rows go one after the other.

    Along each band of rows they go in the order in which they are listed, whoever is faster: sums
    come out the same. A tile whose turn hasn't come is passed over for a later one that needs
    other rows, as the worker that it waits for may be one that the system isn't running.
    """

    def __init__(self, tiles: Iterable[Tile], symmetric: bool) -> None:
        self.tiles, self.symmetric = iter(tiles), symmetric
        lock = threading.Lock()
        self.changed, self.over = threading.Condition(lock), threading.Condition(lock)
        self.passed_over: list[tuple[Tile, dict[int, int]]] = []  # with its turn in each band
        self.listed: Counter[int] = Counter()  # by the band of rows, or of columns
        self.done: Counter[int] = Counter()
        self.running = 0
        self.ended = False  # whether no tile is left to take
        self.stopped = False
        self.failure: BaseException | None = None

    def work(self, worker: Callable[[], Work]) -> None:
        """Do tile after tile, with buffers that are made for the first."""
        do: Work | None = None
        while (tile := self.take()) is not None:
            try:
                do = do or worker()
                do(*tile)
            except BaseException as failure:  # noqa: BLE001 whatever it is, the caller shall see it
                self.failure = self.failure or failure
                self.stop()
                self.ended = True
            finally:
                self.give_back(*tile)

    def take(self) -> Tile | None:
        """The next tile whose turn has come, or nothing if there are no more or it was stopped."""
        with self.changed:
            while not self.stopped:
                tile = self.ready()
                if tile is not None:
                    self.running += 1
                    return tile
                if not self.passed_over:
                    self.ended = True
                    break
                self.changed.wait()
            self.over.notify_all()
            return None

    def ready(self) -> Tile | None:
        """The first tile whose turn has come, of those passed over and the next ones."""
        for place, (tile, turns) in enumerate(self.passed_over):
            if self.have_come(turns):
                del self.passed_over[place]
                return tile
        while len(self.passed_over) < AHEAD and (listed := next(self.tiles, None)) is not None:
            turns = {band: self.listed[band] for band in self.bands(*listed)}
            self.listed.update(turns.keys())
            if self.have_come(turns):
                return listed
            self.passed_over.append((listed, turns))
        return None

    def have_come(self, turns: dict[int, int]) -> bool:
        """Whether all tiles before are done, of each band."""
        return all(self.done[band] == turn for band, turn in turns.items())

    def give_back(self, row: int, column: int) -> None:
        """Those that wait for the tile's rows may go on."""
        with self.changed:
            self.running -= 1
            self.done.update(self.bands(row, column))
            self.changed.notify_all()
            if self.ended and not self.running:
                self.over.notify_all()

    def bands(self, row: int, column: int) -> set[int]:
        """What the tile adds to; of two sides the columns are -1, -2, ..."""
        return {row, column if self.symmetric else -1 - column}

    def stop(self) -> None:
        """No tile is handed out any more."""
        self.stopped = True

    def wait(self) -> None:
        """Until all tiles are done; what failed in a worker is raised here."""
        try:
            with self.over:
                self.over.wait_for(lambda: self.ended and not self.running)
            if self.failure is not None:
                raise self.failure
        finally:
            self.failure = None  # its traceback holds this frame


class Pool:
    """Threads that wait for work, started when they are first needed; each calls `prepare` once.

    One calls it after the other, and it must not fail.

    They are daemons, as a program that ends shall not wait for them, but none of them is at work
    when it ends: Python stops a thread wherever it is, and C++ takes that for a crash. A forked
    process has none of its parent's threads, so its pool begins anew.
    """

    def __init__(self, prepare: Callable[[], object]) -> None:
        self.prepare = prepare
        self.begin()
        atexit.register(self.close)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.begin)

    def begin(self) -> None:
        """No thread yet."""
        self.changed, self.starting = threading.Condition(), threading.Lock()
        self.threads = self.busy = 0
        self.closed = False
        self.waiting: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.passes: set[Turns] = set()

    def close(self) -> None:
        """At exit: the tiles that are being done are the last, and who waits for more waits on."""
        with self.changed:
            self.closed = True
            for turns in self.passes:
                turns.stop()
            self.changed.wait_for(lambda: not self.busy, timeout=10.0)

    def run(self, turns: Turns, worker: Callable[[], Work], workers: int) -> None:
        """Let so many threads do the tiles, or the caller if none can be had."""
        work = partial(turns.work, worker)
        with self.changed:
            threads = 0 if self.closed else self.start(workers)
            if threads:
                self.passes.add(turns)
        try:
            for _ in range(threads):
                self.waiting.put(work)
            if not threads:
                work()
            turns.wait()
        except BaseException:
            turns.stop()
            raise
        finally:
            with self.changed:
                self.passes.discard(turns)

    def start(self, workers: int) -> int:
        """Start threads until there are so many; how many there are to do it."""
        while self.threads < workers:
            thread = threading.Thread(target=self.serve, name="ntxent worker", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # a limit of the system's, or the interpreter is shutting down
                break
            self.threads += 1
            self.busy += 1
        return min(self.threads, workers)

    def serve(self) -> None:
        """What a thread does."""
        with self.starting:
            self.prepare()
        waiting = self.waiting
        while True:
            self.count(-1)
            work = waiting.get()
            self.count(1)
            work()
            del work  # and the buffers with it, before the next is waited for

    def count(self, more: int) -> None:
        """How many threads aren't waiting for work."""
        with self.changed:
            self.busy += more
            self.changed.notify_all()


def side_by_side(
    pool: Pool,
    workers: int,
    tiles: Iterable[Tile],
    symmetric: bool,
    worker: Callable[[], Work],
) -> None:
    """Do all tiles; `worker` makes what does one, with buffers that no other worker has."""
    if workers > 1:
        pool.run(Turns(tiles, symmetric), worker, workers)
        return
    do = worker()
    for tile in tiles:
        do(*tile)
