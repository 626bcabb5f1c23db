"""Results checked, then time and peak memory: each measurement in a process of its own.

`ask` starts the process; `python -m benchmarks.measure REQUEST` is that process.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import cases, peers, runs

ROOT = Path(__file__).resolve().parent.parent
STATUS = Path("/proc/self/status")
# As the tests hold float32 to, at this temperature; errors relative to the loss and to the largest
# entry of the gradient.
LOSS_TOLERANCE = 1e-6
GRADIENT_TOLERANCE = 1e-5

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


def time_forms(keys: Sequence[str], images: int, repeats: int) -> dict[str, dict[str, Any]]:
    """For each form {"times_ms", "loss_error", "gradient_error"}, or {"failed"}."""
    request = {"kind": "time", "forms": list(keys), "images": images, "repeats": repeats}
    answer = ask(request, {})
    return dict.fromkeys(keys, answer) if "failed" in answer else answer


def memory_of(key: str, images: int) -> dict[str, Any]:
    """The same for one form run once, with "peak_mib"."""
    return ask({"kind": "memory", "form": key, "images": images}, MEMORY_ENVIRONMENT)


def ask(request: dict[str, Any], extra: dict[str, str]) -> dict[str, Any]:
    """The answer of a new process, which starts with no peak, no pool and no cache."""
    threads = dict.fromkeys(THREAD_VARIABLES, str(cases.THREADS))
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.measure", json.dumps(request)],
        cwd=ROOT,
        env=os.environ | threads | extra,
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode:  # a negative status is a signal: -9 when memory ran out
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        return {"failed": f"ended with status {child.returncode}: {last}"}
    answer: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return answer


def make_run(key: str, images: int) -> runs.Run:
    """A form and its inputs, on as many threads as every other."""
    form = peers.FORMS[key]
    if form.library == "torch":
        import torch

        torch.set_num_threads(cases.THREADS)
    if form.library == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(cases.THREADS)
    return runs.RUNS[form.library](form, cases.views(images), cases.TEMPERATURE)


def answer_time(forms: list[str], images: int, repeats: int) -> dict[str, Any]:
    """Check every form, then let those that are right take turns."""
    expected = reference(images, peers.FORMS[forms[0]].loss)
    answers: dict[str, Any] = {}
    right: dict[str, runs.Run] = {}
    for key in forms:
        try:
            run = make_run(key, images)
            run.step()
        except Exception as error:  # noqa: BLE001 no compiler, no memory: the others still count
            answers[key] = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
            continue
        answers[key] = errors(run, expected)
        if "failed" not in answers[key]:
            right[key] = run
        run.clear()
    for key, times_ms in interleaved(right, repeats).items():
        answers[key]["times_ms"] = times_ms
    return answers


def interleaved(forms: dict[str, runs.Run], repeats: int) -> dict[str, list[float]]:
    """Times of a step in ms: A B C, B C A, ... so that drift and order hit all alike."""
    times: dict[str, list[float]] = {key: [] for key in forms}
    keys = list(forms)
    before = cases.warmups(repeats) - 1
    for number in range(before + repeats):
        turn = number % len(keys)
        for key in keys[turn:] + keys[:turn]:
            run = forms[key]
            run.clear()
            start = time.perf_counter_ns()
            run.step()
            passed = time.perf_counter_ns() - start
            run.clear()
            if number >= before:
                times[key].append(passed * 1e-6)
    return times


def answer_memory(form: str, images: int) -> dict[str, Any]:
    """One step: its peak above what was there, its time, its errors."""
    # TensorFlow keeps what a step has allocated for the next: the second counts, above all before.
    keeps = peers.FORMS[form].library == "tensorflow"
    compiles = peers.FORMS[form].compiles and not keeps
    warm = make_run(form, images if compiles else 16)
    warm.step()  # what the framework allocates once, and the compiler, isn't the step's
    run = warm if compiles else make_run(form, images)
    run.clear()
    del warm
    gc.collect()
    give_back()
    before = reset_peak()
    if keeps:
        run.step()
        run.clear()
        give_back()
        reset_peak()
    start = time.perf_counter_ns()
    run.step()
    passed = time.perf_counter_ns() - start
    peak = status_mib("VmHWM") - before if before else None
    return errors(run, reference(images, peers.FORMS[form].loss)) | {
        "times_ms": [passed * 1e-6],
        "peak_mib": peak,
    }


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


def errors(run: runs.Run, expected: tuple[float, np.ndarray]) -> dict[str, Any]:
    """Errors of loss and gradient, and "failed" if they are too large to be compared."""
    loss, gradients = run.result()
    distinct = len(expected[1]) // 2
    largest = np.abs(expected[1]).max()
    wanted = expected[1].reshape(2, 1, distinct, -1)
    found = np.stack(gradients).reshape(2, -1, distinct, cases.COLUMNS)
    loss_error = abs(loss - expected[0]) / expected[0]
    # copy by copy: the difference as a whole would need twice the gradients in float64
    gradient_error = max(
        float(np.abs(found[:, copy] - wanted[:, 0]).max() / largest)
        for copy in range(found.shape[1])
    )
    answer: dict[str, Any] = {"loss_error": loss_error, "gradient_error": gradient_error}
    # not `>`: a NaN must fail
    if not (loss_error <= LOSS_TOLERANCE and gradient_error <= GRADIENT_TOLERANCE):
        answer["failed"] = f"wrong: loss off by {loss_error:.1e}, gradient by {gradient_error:.1e}"
    return answer


def reference(images: int, loss: str) -> tuple[float, np.ndarray]:
    """Loss, and gradient of one copy of each image, in float64 by the closed form.

    With c copies a row meets each other row c times; in a loss of one side its own c - 1 times.
    """
    x = np.concatenate([view[: peers.DISTINCT] for view in cases.views(images)]).astype(float)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    z = x / norms
    form = {"nt_xent": nt_xent, "sup_con": sup_con, "info_nce": info_nce}[loss]
    value, dz = form(z, cases.copies(images), cases.TEMPERATURE)
    return value, (dz - (dz * z).sum(1, keepdims=True) * z) / norms


def nt_xent(z: np.ndarray, count: int, tau: float) -> tuple[float, np.ndarray]:
    """The positive is the other view of the image."""
    partner = np.roll(z, len(z) // 2, axis=0)
    return one_side(z, partner, count, tau)


def sup_con(z: np.ndarray, count: int, tau: float) -> tuple[float, np.ndarray]:
    """The positives are all other rows of the class; their mean is what counts."""
    labels = np.tile(peers.labels_of(len(z) // 2), 2)
    same = (labels[:, None] == labels).astype(float)
    positives = count * same.sum(1, keepdims=True) - 1
    return one_side(z, (count * (same @ z) - z) / positives, count, tau)


def one_side(
    z: np.ndarray, positive: np.ndarray, count: int, tau: float
) -> tuple[float, np.ndarray]:
    """Rows against all others; a row is as often the positive of others as they are its own."""
    e = np.exp(z @ z.T / tau)
    total = count * e.sum(1) - e.diagonal()
    loss = float(np.mean(np.log(total) - (z * positive).sum(1) / tau))
    e *= 1 / total[:, None] + 1 / total
    dz = count * (e @ z) - e.diagonal()[:, None] * z - 2 * positive
    return loss, dz / (len(z) * count * tau)


def info_nce(z: np.ndarray, count: int, tau: float) -> tuple[float, np.ndarray]:
    """The first half against the second, in both directions."""
    q, k = np.split(z, 2)
    e = np.exp(q @ k.T / tau)
    rows, columns = count * e.sum(1), count * e.sum(0)
    positive = (q * k).sum(1) / tau
    loss = float((np.log(rows) + np.log(columns) - 2 * positive).mean() / 2)
    e *= count * (1 / rows[:, None] + 1 / columns)
    dz = np.concatenate([e @ k - 2 * k, e.T @ q - 2 * q])
    return loss, dz / (2 * len(q) * count * tau)


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    answers = {"time": answer_time, "memory": answer_memory}[asked.pop("kind")](**asked)
    print(json.dumps(answers))
