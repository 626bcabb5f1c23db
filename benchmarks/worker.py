"""A process that holds one form on one setting and runs it when it is asked to.

`python -m benchmarks.worker` reads a request a line and answers with a line, both JSON:
{"form", "setting", "memory"} first, then {"seconds", "warm"} for each burst of steps.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import oracle, peers, runs
from benchmarks.cases import Setting
from benchmarks.ceilings import Ceilings

STATUS = Path("/proc/self/status")


def main() -> None:
    """Answer until there is no more to read."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not come between the answers
    request = json.loads(sys.stdin.readline())
    setting = Setting(**request["setting"])
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))[: setting.threads]
        bind(cores, apart=request["form"] == "ceilings" and setting.library == "numpy")
    if request["form"] == "ceilings":
        worker: Any = Ceilings(setting)
        answer: dict[str, Any] = {}
    else:
        worker = Worker(request["form"], setting)
        answer = worker.checked(request["memory"])
    print(json.dumps(answer), file=answers, flush=True)
    for line in sys.stdin:
        answer = worker.burst(**json.loads(line))
        print(json.dumps(answer), file=answers, flush=True)


def bind(cores: list[int], apart: bool) -> None:
    """Keep to the cores, as XLA takes all that it may; `apart`, each thread to one of its own.

    OpenBLAS' threads spin while they wait for each other. The system may wake two on one core, and
    leaves them there for seconds: every product then waits for the scheduler, 8 ms for 0.4. What a
    machine can do at best isn't that; forms run as the system lets them.
    """
    os.sched_setaffinity(0, cores)
    if apart:
        threads = sorted(int(task.name) for task in Path("/proc/self/task").iterdir())
        for number, thread in enumerate(threads):
            os.sched_setaffinity(thread, {cores[number % len(cores)]})


class Worker:
    """One form on one setting."""

    def __init__(self, key: str, setting: Setting) -> None:
        self.form, self.setting = peers.form(key), setting
        self.make = runs.RUNS[self.form.library]
        self.run: Any = None

    def checked(self, memory: bool) -> dict[str, Any]:
        """Run a first step and compare it with the oracle; its peak, if that is asked for."""
        try:
            found = self.peak() if memory else self.first()
            found |= oracle.errors(self.setting, *self.run.result())
        except Exception as error:  # noqa: BLE001 no compiler, no memory: the others still count
            return {"failed": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"}
        self.run.clear()
        return found

    def first(self) -> dict[str, Any]:
        """A step, with what is loaded and compiled by it."""
        # glibc takes a block from the system page by page, and gives it back, until one as large
        # was freed once, up to 32 MiB: a process that trains has freed larger ones.
        np.zeros(31 * 2**20, np.uint8)
        self.run = self.make(self.form, self.setting)
        self.run.step()
        return {}

    def peak(self) -> dict[str, Any]:
        """The time of one step and its peak above what was there, in MiB."""
        # TensorFlow keeps what a step has allocated for the next: the second counts, above all
        # before.
        keeps = self.form.library == "tensorflow"
        compiles = self.form.compiles and not keeps
        small = replace(self.setting, images=16)
        warm = self.make(self.form, self.setting if compiles else small)
        warm.step()  # what the framework allocates once, and the compiler, isn't the step's
        self.run = warm if compiles else self.make(self.form, self.setting)
        self.run.clear()
        del warm
        gc.collect()
        give_back()
        before = reset_peak()
        if keeps:
            self.run.step()
            self.run.clear()
            give_back()
            reset_peak()
        start = time.perf_counter_ns(), time.process_time_ns()
        self.run.step()
        ended = time.perf_counter_ns(), time.process_time_ns()
        wall, cpu = (1e-6 * (now - then) for now, then in zip(ended, start, strict=True))
        peak = status_mib("VmHWM") - before if before else None
        return {"peak_mib": peak, "times_ms": [wall], "cpu_ms": cpu}

    def burst(self, seconds: float, warm: bool) -> dict[str, Any]:
        """Steps for so long, at least one; a first one, not counted, if caches are to be warm."""
        if warm:
            self.run.step()
            self.run.clear()
        times: list[float] = []
        ended, cpu = time.perf_counter() + seconds, time.process_time_ns()
        while not times or time.perf_counter() < ended:
            start = time.perf_counter_ns()
            self.run.step()
            times.append(1e-6 * (time.perf_counter_ns() - start))
            self.run.clear()
        return {"times_ms": times, "cpu_ms": 1e-6 * (time.process_time_ns() - cpu) / len(times)}


def give_back() -> None:
    """Freed memory goes back to the system, where the C library can be asked to."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def reset_peak() -> float:
    """What is resident now, in MiB (0: unknown here); the peak starts from there if permitted.

    The kernel's getrusage won't do: its peak survives exec, so a child would start with its
    parent's.
    """
    if not STATUS.exists():
        return 0.0
    # without the permission an earlier peak may hide this one; the tiny warm-up keeps it low
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return status_mib("VmRSS")


def status_mib(field: str) -> float:
    """A line of /proc/self/status, which is in KiB."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(lines[field].split()[0]) / 1024


if __name__ == "__main__":
    main()
