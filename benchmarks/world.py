"""A function in several processes that know each other, as torchrun would start them."""

from __future__ import annotations

import multiprocessing
import pickle
import queue
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

Work = Callable[..., Any]


class FailedError(AssertionError):
    """What a process died of."""


def world(
    processes: int,
    work: Work,
    *inputs: Any,
    timeout: float = 60,
    wait: float = 240,
    lost: int = 0,
) -> Any:
    """`work(rank, *inputs)` in each process of a gloo group: what each returned.

    An exception in one is raised here, unless it is returned. `timeout` is the group's, and `wait`
    for the next result, both in seconds; so many processes are `lost`, and return nothing.
    """
    context = multiprocessing.get_context("spawn")
    found: Any = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        place = f"file://{Path(folder) / 'store'}"
        started = [
            context.Process(
                target=run, args=(rank, processes, place, timeout, found, work, inputs), daemon=True
            )
            for rank in range(processes)
        ]
        for process in started:
            process.start()
        try:
            results = [pickle.loads(found.get(timeout=wait)) for _ in started[lost:]]
        except queue.Empty:
            msg = f"a process of {processes} said nothing within {wait} seconds"
            raise FailedError(msg) from None
        finally:
            for process in started:
                process.join(5)
                process.kill()
    for rank, _, told in results:
        if told:
            msg = f"process {rank} of {processes}: {told}"
            raise FailedError(msg)
    return [value for _, value, _ in sorted(results, key=lambda result: result[0])]


def run(
    rank: int,
    processes: int,
    place: str,
    timeout: float,
    found: Any,
    work: Work,
    inputs: tuple[Any, ...],
) -> None:
    """What a process does."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo", place, timedelta(seconds=timeout), rank=rank, world_size=processes
        )
        result = rank, work(rank, *inputs), ""
    except BaseException:  # noqa: BLE001 whatever it was, the parent tells
        result = rank, None, traceback.format_exc()
    found.put(pickle.dumps(result))  # or tensors would stay here, in memory that ends with us
    found.close()
    found.join_thread()
    if dist.is_initialized():
        dist.destroy_process_group()
