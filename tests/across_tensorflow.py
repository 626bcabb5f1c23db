"""Losses over the replicas of a strategy, in a process of its own; by hand, for the table.

    python tests/across_tensorflow.py [--write]     every loss and batch; into docs/scaling.md
    python tests/across_tensorflow.py table 6,3     every loss, 6 rows on a replica and 3 on another
    python tests/across_tensorflow.py turns 6,3     and for the tests: of some, one of each
    TF_CONFIG=... python tests/across_tensorflow.py worker FILE LOSS ...

TensorFlow's devices are settled before it starts, and a process has one strategy: collectives of a
second would meet those of the first.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import tensorflow as tf

from _shards import EVEN, LOSSES, TEMPERATURE, UNEVEN, errors, shards, show

IMPLEMENTATIONS = ("dense", "tiled")
SIZES = (6, 3)
TESTED = (*EVEN[:2], *UNEVEN)


@cache
def mirrored(replicas: int = 2) -> Any:
    """A strategy over so many parts of the CPU."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    parts = [tf.config.LogicalDeviceConfiguration()] * replicas
    tf.config.set_logical_device_configuration(cpu, parts)
    return tf.distribute.MirroredStrategy([f"CPU:{device}" for device in range(replicas)])


def each(strategy: Any, values: Any) -> Any:
    """A tensor for each replica, by its number."""
    return strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(values[context.replica_id_in_sync_group])
    )


def local(strategy: Any, values: Any) -> list[Any]:
    """Of the replicas of this process, as arrays."""
    return [np.asarray(x) for x in strategy.experimental_local_results(values)]


def found(strategy: Any, name: str, sizes: Any, implementation: str, graph: bool = True) -> Any:
    """The loss, the gradients of the arrays, and of the temperature, of each replica here."""
    import ntxent.tensorflow

    case = shards(name, sizes)
    function = getattr(ntxent.tensorflow, case.loss)
    options = {**case.options, "implementation": implementation, "cross_replica": True}

    def one(arrays: Any, integers: Any) -> Any:
        inputs = [*arrays, tf.constant(TEMPERATURE, tf.float64)]
        given = dict(integers)
        labels = [given.pop("labels")] if "labels" in given else []
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = function(*inputs[:-1], *labels, temperature=inputs[-1], **given, **options)
        return loss, *tape.gradient(loss, inputs)

    def run(*args: Any) -> Any:
        return strategy.run(one, args=args)

    arrays = [each(strategy, parts) for parts in zip(*case.arrays, strict=True)]
    names = case.integers[0]
    integers = {key: each(strategy, [x[key] for x in case.integers]) for key in names}
    results = (tf.function(run) if graph else run)(arrays, integers)
    losses, *gradients, by_temperature = (local(strategy, x) for x in results)
    return losses, list(zip(*gradients, strict=True)), by_temperature


def in_turn(place: int, sizes: tuple[int, ...]) -> tuple[str, ...]:
    """One of the implementations or none.

    A loss is traced for two seconds on two replicas and for up to thirty on four, of which each
    meets each. So on two, with as many rows or with more and fewer, each loss has one; alone a
    third of them have one; on three those that had as many rows on two, on four two losses.
    """
    number = TESTED.index(sizes)
    turn = (place // 2 + number) % 2
    two = [other for other in range(len(LOSSES)) if other % 2 == number % 2]
    wanted = {1: (0, 3, 6, 9), 2: two, 3: (1, 3, 7, 9, 11), 4: (0, 5)}[len(sizes)]
    return IMPLEMENTATIONS[turn : turn + 1] if place in wanted else ()


def table(sizes: tuple[int, ...], turns: bool = False) -> None:
    """The errors of every loss over shards of these sizes, a line each."""
    for place, name in enumerate(LOSSES):
        for implementation in in_turn(place, sizes) if turns else IMPLEMENTATIONS:
            results = found(mirrored(len(sizes)), name, sizes, implementation)
            line = f"{name:31}", f"{implementation:6}", f"{sizes!s:12}"
            numbers = (f"{error:.1e}" for error in errors(name, sizes, *results))
            print(*line, *numbers, sep="\t", flush=True)


def main() -> None:
    """Print the table of all batches, each in a process of its own."""
    cells: Any = {}
    for sizes in (*EVEN, *UNEVEN):
        command = [sys.executable, __file__, "table", ",".join(map(str, sizes))]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for line in told.splitlines():
            name, how, _, loss, gradient = (part.strip() for part in line.split("\t"))
            cells.setdefault((name, how), {})[sizes] = float(loss), float(gradient)
    show("tensorflow", cells)


def worker(file: str, *names: str) -> None:
    """One of the processes of a multi-worker strategy: what it found goes to a file."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    results = {}
    for name in names:
        (loss,), (gradients,), (by_temperature,) = found(strategy, name, SIZES, "tiled")
        results[name] = [loss, *gradients, by_temperature]
    np.savez(file, **{f"{key}:{i}": x for key, y in results.items() for i, x in enumerate(y)})


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")
    match sys.argv[1:]:
        case ["table" | "turns" as what, *batches]:  # with as many replicas each
            for sizes in batches:
                table(tuple(map(int, sizes.split(","))), what == "turns")
        case ["worker", *rest]:
            worker(*rest)
        case _:
            main()
