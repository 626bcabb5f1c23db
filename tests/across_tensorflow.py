"""Losses over the replicas of a strategy, in a process of their own; by hand, it prints the table.

The devices of a process are settled before TensorFlow starts, which pytest's has long done.

    python tests/across_tensorflow.py table 3          all losses on 1, 2 and 3 replicas
    python tests/across_tensorflow.py worker           one of several, as TF_CONFIG has it
"""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import tensorflow as tf

from _shards import EVEN, LOSSES, TEMPERATURE, UNEVEN, errors, shards

IMPLEMENTATIONS = ("dense", "tiled")


@cache
def mirrored(replicas: int) -> Any:
    """A strategy over the first devices of this CPU; a second would reuse the first's messages."""
    return tf.distribute.MirroredStrategy([f"CPU:{device}" for device in range(replicas)])


def split(devices: int) -> None:
    """The CPU as so many devices; before anything else is asked of TensorFlow."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    parts = [tf.config.LogicalDeviceConfiguration()] * devices
    tf.config.set_logical_device_configuration(cpu, parts)


def each(strategy: Any, values: Any) -> Any:
    """A value for each replica, by its number."""
    return strategy.experimental_distribute_values_from_function(
        lambda context: values[context.replica_id_in_sync_group]
    )


def local(strategy: Any, values: Any) -> list[Any]:
    """Of the replicas of this process, as arrays."""
    return [np.asarray(x) for x in strategy.experimental_local_results(values)]


def found(strategy: Any, name: str, sizes: tuple[int, ...], implementation: str) -> Any:
    """The loss, the gradients of the arrays, and of the temperature, of each replica here."""
    import ntxent.tensorflow

    case = shards(name, sizes)

    def one(arrays: Any, integers: Any) -> Any:
        inputs, temperature = list(arrays), tf.constant(TEMPERATURE, tf.float64)
        labels = [integers["labels"]] if "labels" in integers else []
        ids = {"ids": integers["ids"]} if "ids" in integers else {}
        with tf.GradientTape() as tape:
            tape.watch((*inputs, temperature))
            loss = getattr(ntxent.tensorflow, case.loss)(
                *inputs,
                *labels,
                temperature=temperature,
                implementation=implementation,
                cross_replica=True,
                **ids,
                **case.options,
            )
        return loss, *tape.gradient(loss, [*inputs, temperature])

    arrays = tuple(each(strategy, list(map(tf.constant, parts))) for parts in zip(*case.arrays))
    integers = {
        key: each(strategy, [tf.constant(x[key]) for x in case.integers])
        for key in case.integers[0]
    }
    run = tf.function(lambda *args: strategy.run(one, args=args))
    losses, *gradients, by_temperature = (local(strategy, x) for x in run(arrays, integers))
    return losses, list(zip(*gradients, strict=True)), by_temperature


def table(replicas: int) -> None:
    """The errors of every loss, a line each."""
    for sizes in (*EVEN, *UNEVEN):
        if len(sizes) != replicas:
            continue
        for name in LOSSES:
            for implementation in IMPLEMENTATIONS:
                results = found(mirrored(replicas), name, sizes, implementation)
                loss, gradient = errors(name, sizes, *results)
                print(
                    f"{name:32} {implementation:6} {sizes!s:14} {loss:.1e} {gradient:.1e}",
                    flush=True,
                )


if __name__ == "__main__":
    split(4)
    table(int(sys.argv[2]))
