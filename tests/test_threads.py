"""Threads of PyTorch and NumPy: right with any number of them, and all settings as they were."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from functools import partial
from typing import Any

import numpy as np
import pytest

from _adapters import ADAPTERS

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


STEPS = {"torch": (torch_step, torch_threads), "numpy": (numpy_step, numpy_threads)}
only_tiles = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.only(name)) for name in STEPS]
)


@only_tiles
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
def asked(request: pytest.FixtureRequest, name: str) -> Any:
    """So many threads, as a user asks for them."""
    count = getattr(request, "param", 2)
    if name == "torch":
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(count)
        yield count
        torch.set_num_threads(before)
    else:
        from threadpoolctl import threadpool_limits

        with threadpool_limits(count, "blas"):
            yield count


@only_tiles
@pytest.mark.parametrize("asked", [1, 2, 4], indirect=True)
@pytest.mark.parametrize("temperature", [0.5, 0.01])  # 0.01: below a running maximum
def test_any_number_of_workers_gives_the_same_loss(
    name: str, asked: int, temperature: float
) -> None:
    step, _ = STEPS[name]
    z = batch("float64")
    found = step(z, temperature=temperature)
    again = step(z, temperature=temperature)
    expected = step(z, temperature=temperature, implementation="dense")
    for x, y, right in zip(found, again, expected, strict=True):
        np.testing.assert_array_equal(x, y)  # the same bits
        np.testing.assert_allclose(x, right, rtol=1e-9, atol=1e-14)


@only_tiles
@pytest.mark.parametrize("asked", [2], indirect=True)
def test_settings_of_threads_are_the_same_after_a_call(name: str, asked: int) -> None:
    step, threads = STEPS[name]
    before, others = threads(), []
    step(batch())
    assert threads() == before
    fresh = threading.Thread(target=lambda: others.append(threads()))  # born later: the default
    fresh.start()
    fresh.join()
    assert others == [before]


@only_tiles
@pytest.mark.parametrize("asked", [2], indirect=True)
def test_settings_are_the_same_after_a_failure(name: str, asked: int, monkeypatch: Any) -> None:
    step, threads = STEPS[name]
    before = threads()
    tiled = sys.modules[f"ntxent.{name}._tiled"]
    right = step(batch())
    with monkeypatch.context() as patch:
        patch.setattr(tiled, "weights", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            step(batch())
    assert threads() == before
    for x, y in zip(step(batch()), right, strict=True):
        np.testing.assert_array_equal(x, y)


@only_tiles
@pytest.mark.parametrize("asked", [2], indirect=True)
def test_several_threads_at_once(name: str, asked: int) -> None:
    step, threads = STEPS[name]
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
import os
{first}
import sys, threading, time, warnings, numpy as np
sys.path.insert(0, "tests")
from ntxent import _grid, _workers
from test_threads import STEPS, batch
step, threads = STEPS[{name!r}]
from ntxent.{name}._threads import POOL
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
    work = lambda number, row, column: done.append(number)
    _workers.side_by_side(POOL, 2, _grid.rounds(8, 8, True), True, lambda: work)
    os._exit(0 if same and len(done) == 36 else 1)
print(os.waitpid(child, 0)[1], flush=True)
"""
    assert run(name, program) == "0\n"


@only_tiles
def test_at_exit_without_a_thread_yet(name: str) -> None:
    """Some Pythons start none any more: the caller does the tiles."""
    then = """
import atexit
atexit.register(lambda: print(float(step(batch())[0]) > 0, flush=True))
"""
    assert run(name, then) == "True\n"


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

    before = torch.get_num_threads()
    found = []
    for implementation, mode in (("dense", False), ("tiled", False), ("tiled", True)):
        rows = np.random.default_rng(0).standard_normal((2, images, 16))
        views = [torch.tensor(view, dtype=getattr(torch, dtype)).requires_grad_() for view in rows]
        torch.set_num_threads(threads[0])
        loss = nt_xent(*views, reduction=then, implementation=implementation)
        torch.set_num_threads(threads[1])
        with FlopCounterMode(display=False) if mode else contextlib.nullcontext():
            loss.sum().backward()
        torch.set_num_threads(before)
        found.append([view.grad.float() for view in views])
    tolerance = 1e-5 if dtype == "float32" else 2**-7
    for grads in found[1:]:
        for x, right in zip(grads, found[0], strict=True):
            assert (x - right).abs().max() <= tolerance * right.abs().max()


@pytest.mark.only("torch")
def test_a_worker_holds_two_tiles_at_most(monkeypatch: Any) -> None:
    import torch

    from ntxent.torch import _tiled

    made: list[int] = []
    new = _tiled.Tiles.new_buffer
    monkeypatch.setattr(_tiled, "KEEP_BYTES", 0)
    monkeypatch.setattr(_tiled.Tiles, "new_buffer", lambda tiles: made.append(1) or new(tiles))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch_step(batch())
    torch.set_num_threads(before)
    assert 2 <= len(made) <= 2 + 4  # one a worker forward, two backward


@only_tiles
def test_a_program_ends_while_a_daemon_is_at_work(name: str) -> None:
    """It waits for a tile at most, not for the step."""
    program = """
z = np.random.default_rng(0).standard_normal((2, 20000, 16)).astype("float32")
threading.Thread(target=step, args=(z,), daemon=True).start()
while not POOL.passes:
    time.sleep(0.001)
time.sleep(0.01)
print("end", flush=True)
"""
    assert run(name, program) == "end\n"


@only_tiles
def test_at_exit(name: str) -> None:
    """No thread can be started any more in newer Pythons; those that are there serve."""
    program = """
import atexit
step(batch())
atexit.register(lambda: print(float(step(batch())[0]) > 0, flush=True))
"""
    assert run(name, program) == "True\n"


@only_tiles
def test_with_one_core(name: str) -> None:
    first = "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    then = "print(float(step(batch())[0]) > 0, threads() in (1, [1]), flush=True)"
    assert run(name, then, first) == "True True\n"


@pytest.mark.only("torch")
def test_in_inference_mode() -> None:
    import torch

    from ntxent.torch import nt_xent

    views = [torch.from_numpy(view) for view in batch()]
    right = nt_xent(*views)
    with torch.inference_mode():
        assert torch.equal(nt_xent(*views), right)
        rows = nt_xent(*(view.clone() for view in views), reduction="none")
    torch.testing.assert_close(rows.mean(), right)
