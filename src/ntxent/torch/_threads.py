"""The threads that take tiles, and what of PyTorch's settings is a thread's own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor

from ntxent import _workers
from ntxent._workers import Work


def most_workers(rows: Tensor) -> int:
    """As many as the caller has threads; one on a GPU, or where a mode must see all operations."""
    if rows.device.type != "cpu" or torch._C._len_torch_dispatch_stack() > 0:
        return 1
    return torch.get_num_threads()


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


POOL = _workers.Pool(one_thread)
