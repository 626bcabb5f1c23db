"""Threads of PyTorch and NumPy: right with any number of them, and all settings as they were."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from ntxent._pairs import sharing

N = 700  # images: 1400 rows, several tiles


def batch(dtype: str = "float32") -> Any:
    return np.random.default_rng(0).standard_normal((2, N, 16)).astype(dtype)


def torch_step(z: Any, **options: Any) -> Any:
    import torch

    from ntxent.torch import nt_xent

    views = [torch.from_numpy(view.copy()).requires_grad_() for view in z]
    loss = nt_xent(*views, **options)
    loss.backward()
    return [loss.detach().numpy(), *(view.grad.numpy() for view in views)]


def numpy_step(z: Any, **options: Any) -> Any:
    from ntxent.numpy import nt_xent, value_and_grad

    loss, grads = value_and_grad(lambda *views: nt_xent(*views, **options))(*z)
    return [loss, *grads]


def torch_threads() -> int:
    import torch

    return torch.get_num_threads()


def numpy_threads() -> list[int]:
    from threadpoolctl import threadpool_info

    return [found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas"]


@contextlib.contextmanager
def torch_asked(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def numpy_asked(count: int) -> Any:
    from threadpoolctl import threadpool_limits

    return threadpool_limits(count, "blas")


STEPS = {
    "torch": (torch_step, torch_threads, torch_asked),
    "numpy": (numpy_step, numpy_threads, numpy_asked),
}
only_tiles = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.only(name)) for name in STEPS]
)


@pytest.fixture
def asked(request: pytest.FixtureRequest, name: str) -> Iterator[int]:
    """So many threads, as a user asks for them."""
    count = getattr(request, "param", 2)
    with STEPS[name][2](count):
        yield count


@pytest.fixture
def doers(monkeypatch: Any) -> list[set[str]]:
    """The names of the threads that do tiles, for each pass over them."""
    passes: list[set[str]] = []
    side_by_side = sharing.side_by_side

    def noted(*args: Any) -> None:
        *given, worker = args
        passes.append(names := set())

        def work(do: sharing.Work, *tile: int) -> None:
            names.add(threading.current_thread().name)
            do(*tile)

        side_by_side(*given, lambda: partial(work, worker()))

    monkeypatch.setattr(sharing, "side_by_side", noted)
    return passes


@only_tiles
@pytest.mark.parametrize("asked", [1, 2, 4], indirect=True)
@pytest.mark.parametrize("temperature", [0.5, 0.01])  # 0.01: below a running maximum
def test_any_number_of_workers_gives_the_same_loss(
    name: str, asked: int, doers: list[set[str]], temperature: float
) -> None:
    step, *_ = STEPS[name]
    z = batch("float64")
    found = step(z, temperature=temperature)
    caller = threading.current_thread().name
    assert doers == [{caller if asked == 1 else "ntxent worker"}] * 2  # forward and backward
    again = step(z, temperature=temperature)
    expected = step(z, temperature=temperature, implementation="dense")
    for x, y, right in zip(found, again, expected, strict=True):
        np.testing.assert_array_equal(x, y)  # the same bits
        np.testing.assert_allclose(x, right, rtol=1e-9, atol=1e-14)


@only_tiles
def test_settings_are_the_same_after_a_failure(name: str, asked: int, monkeypatch: Any) -> None:
    step, threads, _ = STEPS[name]
    before = threads()
    tiled = sys.modules[f"ntxent.{name}._pairs.tiled"]
    right = step(batch())
    with monkeypatch.context() as patch:
        patch.setattr(tiled, "weights", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            step(batch())
    assert threads() == before
    for x, y in zip(step(batch()), right, strict=True):
        np.testing.assert_array_equal(x, y)


@only_tiles
def test_several_threads_at_once(name: str, asked: int) -> None:
    step, threads, _ = STEPS[name]
    before, right = threads(), step(batch())
    found: list[Any] = []
    callers = [threading.Thread(target=lambda: found.append(step(batch()))) for _ in range(5)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 5
    for one in found:
        for x, y in zip(one, right, strict=True):
            np.testing.assert_array_equal(x, y)
    assert threads() == before


PROGRAM = """
import atexit, os
{first}
import sys, threading, time, warnings, numpy as np
sys.path.insert(0, "tests")
from ntxent._pairs import places, sharing
from test_threads import STEPS, batch
step, threads, asked = STEPS[{name!r}]
from ntxent.{name}._pairs.threads import POOL
{then}
"""


def run(name: str, then: str, first: str = "") -> str:
    """What a program of its own prints, on all cores; it ends well, and says nothing beside."""
    source = PROGRAM.format(name=name, first=first, then=then)
    command = [sys.executable, "-c", source]
    env = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=env
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@only_tiles
def test_settings_of_threads_are_the_same_after_a_call(name: str) -> None:
    """Where the pool's threads, which have settings of their own, start with that call.

    One that found no tile left may still be at its settings: a thread that is born meanwhile has
    one thread, as `one_thread` says.
    """
    program = """
numbers = []
with asked(3):
    assert POOL.threads == 0
    numbers.append(threads())
    step(batch())
    assert POOL.threads > 1
    numbers.append(threads())
    while POOL.busy:
        time.sleep(0.001)
    fresh = threading.Thread(target=lambda: numbers.append(threads()))  # has the default
    fresh.start()
    fresh.join()
print(numbers, flush=True)
"""
    one = 3 if name == "torch" else [3]
    assert run(name, program) == f"{[one] * 3}\n"


@only_tiles
def test_a_forked_process_has_a_pool_of_its_own(name: str) -> None:
    """The child has none of its parent's threads, and would wait for them for ever.

    PyTorch's own operations do so in a child that shares them among threads, so a data loader gives
    its workers one.
    """
    program = """
right = step(batch())
warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
child = os.fork()
if child == 0:
    if "torch" in sys.modules:
        import torch
        torch.set_num_threads(1)
    same = all(np.allclose(x, y, 1e-5, 1e-9) for x, y in zip(step(batch()), right))
    done = []
    work = lambda *tile: done.append(tile)
    sharing.side_by_side(POOL, 2, places.rounds(8, 8, True), True, lambda: work)
    os._exit(0 if same and len(done) == 36 else 1)
print(os.waitpid(child, 0)[1], flush=True)
"""
    assert run(name, program) == "0\n"


@only_tiles
@pytest.mark.parametrize("before", ["", "step(batch())"], ids=["no thread yet", "threads"])
def test_at_exit(name: str, before: str) -> None:
    """Newer Pythons start no thread any more: those that are there serve, or the caller does."""
    then = "atexit.register(lambda: print(float(step(batch())[0]) > 0, flush=True))"
    assert run(name, f"{before}\n{then}") == "True\n"


@only_tiles
def test_a_program_ends_while_a_daemon_is_at_work(name: str) -> None:
    """It waits for tiles that are being done, not for the step: tiles are left, and nobody at work.

    What is registered first is called last, after the pool was closed.
    """
    first = """
atexit.register(lambda: print([(turns.ended, turns.running) for turns in POOL.passes], flush=True))
"""
    program = """
z = np.random.default_rng(0).standard_normal((2, 20000, 16)).astype("float32")
threading.Thread(target=step, args=(z,), daemon=True).start()
while not POOL.passes:
    time.sleep(0.001)
time.sleep(0.01)
"""
    assert run(name, program, first) == "[(False, 0)]\n"


@only_tiles
def test_with_one_core(name: str) -> None:
    first = "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    then = "print(float(step(batch())[0]) > 0, threads() in (1, [1]), flush=True)"
    assert run(name, then, first) == "True True\n"


@pytest.mark.only("torch")
@pytest.mark.parametrize("images", [300, 700])
@pytest.mark.parametrize(("then", "dtype"), [("none", "float32"), ("mean", "bfloat16")])
@pytest.mark.parametrize("threads", [(1, 2), (2, 1), (2, 8), (8, 2)])
def test_another_number_of_threads_in_the_backward_pass(
    images: int, then: str, dtype: str, threads: tuple[int, int]
) -> None:
    """Tiles that were kept are those of the forward pass; a mode sees operations of one worker."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from ntxent.torch import nt_xent

    found = []
    for implementation, mode in (("dense", False), ("tiled", False), ("tiled", True)):
        rows = np.random.default_rng(0).standard_normal((2, images, 16))
        views = [torch.tensor(view, dtype=getattr(torch, dtype)).requires_grad_() for view in rows]
        with torch_asked(threads[0]):
            loss = nt_xent(*views, reduction=then, implementation=implementation)
        counted = FlopCounterMode(display=False) if mode else contextlib.nullcontext()
        with torch_asked(threads[1]), counted:
            loss.sum().backward()
        found.append([view.grad.float() for view in views])
    tolerance = 1e-5 if dtype == "float32" else 2**-7
    for grads in found[1:]:
        for x, right in zip(grads, found[0], strict=True):
            assert (x - right).abs().max() <= tolerance * right.abs().max()
