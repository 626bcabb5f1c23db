"""The threads that take tiles, and what of PyTorch's settings is a thread's own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from ntxent import _workers
from ntxent._workers import Work


def most_workers(rows: Tensor) -> int:
    """As many as the caller has threads; one on a GPU, or where a mode must see all operations."""
    if rows.device.type != "cpu" or torch._C._len_torch_dispatch_stack() > 0:
        return 1
    return getattr(LOCAL, "asked", 0) or torch.get_num_threads()


@contextmanager
def calm() -> Iterator[None]:
    """Operations of the calling thread share few threads, but for tiles side by side.

    OpenMP's threads spin for six milliseconds after an operation that they shared, on the cores
    that the workers want: on two of them InfoNCE at N = 1024 took 18 ms in place of 13, and beside
    two busy processes NT-Xent at N = 512 took 170 in place of 16. An eighth of the cores do what is
    O(n d) well enough. The number is each thread's own, so nobody else notices.
    """
    before = getattr(LOCAL, "asked", 0)
    LOCAL.asked = before or torch.get_num_threads()
    try:
        with openmp().limit(limits=max(1, LOCAL.asked // 8)):
            yield
    finally:
        LOCAL.asked = before


@cache
def openmp() -> Any:
    """PyTorch's OpenMP, or all if it isn't among them; looked for once, as that takes a while."""
    every = ThreadpoolController().select(user_api="openmp")
    paths = [library.filepath for library in every.lib_controllers]
    own = [path for path in paths if "torch" in path]
    return every.select(filepath=own) if own else every


def side_by_side(
    workers: int, tiles: Iterable[tuple[int, int]], symmetric: bool, worker: Callable[[], Work]
) -> None:
    """Have all tiles done, in the caller's inference mode; see `_workers.side_by_side`."""
    inference = torch.is_inference_mode_enabled()

    def work(do: Work, *tile: int) -> None:
        with torch.inference_mode(inference), torch.no_grad():
            do(*tile)

    _workers.side_by_side(POOL, workers, tiles, symmetric, lambda: partial(work, worker()))


def one_thread() -> None:
    """Operations of this thread shall have no other threads.

    PyTorch takes the number for that of threads to come as well, so one of them, which ends at
    once, takes it back. A thread that first meets PyTorch in between has one for its life.
    """
    number = torch.get_num_threads()
    torch.set_num_threads(1)
    last = threading.Thread(target=torch.set_num_threads, args=(number,))
    try:
        last.start()
    except RuntimeError:  # no thread is to be had: this one shares its operations, then
        torch.set_num_threads(number)
    else:
        last.join()


LOCAL = threading.local()  # `asked`: the threads that the user asked for, while it is calm
POOL = _workers.Pool(one_thread)
