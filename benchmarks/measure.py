"""Processes that hold a form each, and take turns: A B C, B C A, ...

Drift, order and what other processes take hit all forms alike; no form sees another's threads,
pools or caches.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import Case, Setting, missing
from benchmarks.ceilings import floor_ms

ROOT = Path(__file__).resolve().parent.parent
BURST_S = 0.1  # shorter steps are repeated for so long in a turn
WARM_MS = 200.0  # shorter steps start a turn with one that isn't counted
ROUNDS = (3, 20)

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
# glibc raises its threshold for mmap as large blocks are freed, and then keeps freed blocks in its
# heap: a second step would find its memory there and seem to need none. Fixed thresholds give
# every large block back at once, so that the peak is what is alive.
MEMORY_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(2**16), "MALLOC_TRIM_THRESHOLD_": "0"}


class Process:
    """A worker, asked a line at a time; one that has ended answers that it failed."""

    def __init__(self, form: str, setting: Setting, *, memory: bool = False) -> None:
        threads = dict.fromkeys(THREAD_VARIABLES, str(setting.threads))
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 closed with the process
        self.child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            cwd=ROOT,
            env=os.environ | threads | (MEMORY_ENVIRONMENT if memory else {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        self.first = self.ask({"form": form, "setting": asdict(setting), "memory": memory})

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request."""
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.child.stdin.write(json.dumps(request) + "\n")
            self.child.stdin.flush()
        line = self.child.stdout.readline()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        status = self.child.wait()  # a negative one is a signal: -9 when memory ran out
        self.errors.seek(0)
        last = (self.errors.read().strip().splitlines() or ["no message"])[-1]
        return {"failed": f"ended with status {status}: {last}"}

    def close(self) -> None:
        """Let it end."""
        with contextlib.suppress(BrokenPipeError):
            self.child.communicate()
        self.errors.close()


@contextlib.contextmanager
def process(form: str, setting: Setting, *, memory: bool = False) -> Iterator[Process]:
    """A worker that ends with the block."""
    worker = Process(form, setting, memory=memory)
    try:
        yield worker
    finally:
        worker.close()


def measured(case: Case) -> dict[str, dict[str, Any]]:
    """For each form what was found: times, peak, errors, or why there are none."""
    found: dict[str, dict[str, Any]] = {}
    for key in case.forms:
        reason = missing(case, key)
        if reason:
            found[key] = {"failed": reason}
        elif case.memory or case.once(key):
            with process(key, case.setting, memory=True) as worker:
                found[key] = worker.first
    todo = [key for key in case.forms if "failed" not in found.get(key, {}) and not case.once(key)]
    with process("ceilings", case.setting) as ceilings:
        timed, rates = in_turns(case, todo, ceilings)
    for key, answer in timed.items():  # a first step's time had no warm-up of its size
        found[key] = found.get(key, {}) | answer
    floor = floor_ms(case.setting, medians(rates))
    return {key: {"floor_ms": floor} | found[key] for key in case.forms}


def in_turns(
    case: Case, keys: Sequence[str], ceilings: Process
) -> tuple[dict[str, dict[str, Any]], list[dict[str, float]]]:
    """Times of all forms that are right, and the machine's rates in between."""
    with contextlib.ExitStack() as stack:
        workers = {key: stack.enter_context(process(key, case.setting)) for key in keys}
        found = {key: dict(worker.first) for key, worker in workers.items()}
        right = {key: worker for key, worker in workers.items() if "failed" not in found[key]}
        bursts: dict[str, list[dict[str, Any]]] = {key: [] for key in right}
        rates: list[dict[str, float]] = []
        ended = time.monotonic() + case.budget_s
        least, most = ROUNDS
        while len(rates) < least or (time.monotonic() < ended and len(rates) < most):
            turn = len(rates) % max(1, len(right))
            rates.append(ceilings.ask({"seconds": BURST_S, "warm": True}))
            for key in [*right][turn:] + [*right][:turn]:
                step_ms = bursts[key][-1]["times_ms"][-1] if bursts[key] else 0.0
                request = {"seconds": BURST_S, "warm": step_ms < WARM_MS}
                answer = right[key].ask(request)
                if "failed" in answer:
                    found[key] |= answer
                    del right[key]
                else:
                    bursts[key].append(answer)
    return {key: answer | summary(bursts.get(key, [])) for key, answer in found.items()}, rates


def summary(bursts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A time for each turn, the median of its steps; CPU time; the number of steps."""
    if not bursts:
        return {}
    return {
        "times_ms": [float(np.median(burst["times_ms"])) for burst in bursts],
        "cpu_ms": float(np.median([burst["cpu_ms"] for burst in bursts])),
        "steps": sum(len(burst["times_ms"]) for burst in bursts),
    }


def medians(rates: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of each rate."""
    return {name: float(np.median([rate[name] for rate in rates])) for name in rates[0]}
