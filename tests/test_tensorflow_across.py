"""One batch over the replicas of a strategy, in processes of their own."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _shards import EVEN, GRADIENT, LOSS, LOSSES, UNEVEN, errors
from _tolerances import assert_within

pytestmark = pytest.mark.only("tensorflow")

HERE = Path(__file__).parent
TABLE, CHECK = HERE / "across_tensorflow.py", HERE / "across_tensorflow_checks.py"
SIZES = UNEVEN[0]
CHECKS = re.findall(r"^def check_(\w+)", CHECK.read_text(encoding="utf-8"), re.MULTILINE)
CHECKS.sort(key="refusals".__eq__)  # the last of its process, whose collectives it breaks


def started(*command: Any, **environment: str) -> subprocess.Popen[str]:
    """Another Python, which sees the package and no GPU."""
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def assert_finished(process: subprocess.Popen[str], seconds: int = 300) -> str:
    """What it printed; it may neither fail nor wait for ever."""
    try:
        printed, complaints = process.communicate(timeout=seconds)
    finally:
        process.kill()
    assert process.returncode == 0, complaints
    return printed


@pytest.mark.parametrize(
    ("batches", "count"),
    [(EVEN[:1], 4), ((EVEN[1], UNEVEN[0]), 12), (UNEVEN[1:2], 5), (UNEVEN[2:], 2)],
    ids=str,
)
def test_shards_have_the_loss_and_the_gradient_of_the_whole(
    every: bool, batches: Any, count: int
) -> None:
    """In a graph: each loss with one implementation, each batch with some; all with `--all`.

    Those of as many replicas share a process.
    """
    texts = [",".join(map(str, sizes)) for sizes in batches]
    what = "table" if every else "turns"
    lines = assert_finished(started(TABLE, what, *texts), 1800 if every else 600).splitlines()
    assert len(lines) == (2 * len(LOSSES) * len(batches) if every else count)
    for line in lines:
        name, implementation, _, loss, gradient = map(str.strip, line.split("\t"))
        assert_within(float(loss), LOSS, f"loss of {name}, {implementation}")
        assert_within(float(gradient), GRADIENT, f"gradient of {name}, {implementation}")


@pytest.mark.parametrize("names", [CHECKS[1::2], CHECKS[::2]], ids=["some", "others"])
def test_on_two_replicas(every: bool, names: list[str]) -> None:
    """What is checked, the script says; not a process for each, which takes seconds to begin."""
    assert assert_finished(started(CHECK, *["--all"] * every, *names), 600).split() == names


def free_ports(count: int) -> list[int]:
    """Open together, so that they differ."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for found in sockets:
            found.bind(("localhost", 0))
        return [found.getsockname()[1] for found in sockets]


def test_two_processes(tmp_path: Path) -> None:
    """Of a multi-worker strategy, with a replica each."""
    names = "nt_xent", "sup_con", "info_nce, symmetric, queue, ids"
    files = [tmp_path / f"{number}.npz" for number in range(len(SIZES))]
    hosts = [f"localhost:{port}" for port in free_ports(len(SIZES))]
    workers = []
    for index, file in enumerate(files):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": {"worker": hosts}, "task": task})
        workers.append(started(TABLE, "worker", file, *names, TF_CONFIG=config))
    try:
        for process in workers:
            assert_finished(process)
    finally:
        for process in workers:
            process.kill()
    results = [np.load(file) for file in files]
    for name in names:
        of_each = [
            [x for key, x in found.items() if key.startswith(f"{name}:")] for found in results
        ]
        losses, *gradients, by_temperature = zip(*of_each, strict=True)
        loss, gradient = errors(
            name, SIZES, losses, list(zip(*gradients, strict=True)), by_temperature
        )
        assert_within(loss, LOSS, f"loss of {name}")
        assert_within(gradient, GRADIENT, f"gradient of {name}")
