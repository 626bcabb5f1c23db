"""The threads that take tiles, and what of PyTorch's settings is a thread's own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from ntxent._pairs import sharing
from ntxent._pairs.sharing import Work


def most_workers(rows: Tensor) -> int:
    """As many as the caller has threads; one on a GPU, or where a mode must see all operations."""
    if rows.device.type != "cpu" or torch._C._len_torch_dispatch_stack() > 0:
        return 1
    return LOCAL.asked or torch.get_num_threads()


class Local(threading.local):
    """What is a thread's own."""

    asked = 0  # the threads that the user asked for, while it is hushed


LOCAL = Local()


def hush() -> None:
    """From here to `unhush` the calling thread's operations have no other threads.

    OpenMP's spin for six milliseconds after an operation that they shared, on the cores that the
    workers want (docs/adr/0014-tiles-side-by-side.md). Its number of threads is each thread's own,
    so nobody else notices.
    """
    if not LOCAL.asked:
        LOCAL.asked = torch.get_num_threads()
        set_openmp(1)


def unhush() -> None:
    """As many threads as before, if it was hushed."""
    if LOCAL.asked:
        set_openmp(LOCAL.asked)
        LOCAL.asked = 0


def set_openmp(threads: int) -> None:
    """PyTorch's own number is left alone, which threads to come would have too."""
    for library in openmp():
        library.set_num_threads(threads)


@cache
def openmp() -> list[Any]:
    """The OpenMP that PyTorch brings; looked for once, as that takes a while."""
    try:
        every = ThreadpoolController().select(user_api="openmp").lib_controllers
    except RuntimeWarning:  # that there are two which don't go together, if warnings are errors
        return []
    own = Path(torch.__file__).parent
    # That of Microsoft's compiler has one number for the whole process.
    return [x for x in every if own in Path(x.filepath).parents and x.prefix != "vcomp"]


def side_by_side(
    workers: int, tiles: Iterable[tuple[int, int]], symmetric: bool, worker: Callable[[], Work]
) -> None:
    """Have all tiles done, in the caller's inference mode; see `sharing.side_by_side`."""
    inference = torch.is_inference_mode_enabled()

    def work(do: Work, *tile: int) -> None:
        with torch.inference_mode(inference), torch.no_grad():
            do(*tile)

    sharing.side_by_side(POOL, workers, tiles, symmetric, lambda: partial(work, worker()))


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


POOL = sharing.Pool(one_thread)
