"""Loops over tiles as graphs, and when XLA compiles them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.op_callbacks import should_invoke_op_callbacks  # no public names
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

from ntxent._pairs.sides import Pairs
from ntxent.tensorflow._pairs.tiles import count

# From so many queries on, if their number is known, XLA compiles the loop over tiles, 3 s for each
# shape. At N=4096: 120 ms compiled, 180 ms not.
COMPILED_ROWS = 2048


def as_graph(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as a graph: eagerly, Python would dispatch each operation of each tile.

    In a graph of TensorFlow 1 too: its own loops may write a tile once alone.
    """
    plain = tf.function(function, autograph=False, reduce_retracing=True)
    compiled = tf.function(function, autograph=False, jit_compile=True)

    def run(pairs: Pairs, *rest: Any) -> Any:
        rows = count(pairs.queries)
        large = isinstance(rows, int) and rows >= COMPILED_ROWS
        if large and not (in_xla() or should_invoke_op_callbacks()):  # XLA can't check numerics
            return compiled(pairs, *rest)
        return (function if tf.inside_function() else plain)(pairs, *rest)

    return run


def in_xla() -> bool:
    """Whether this is traced for XLA, as a part of a function that it compiles whole."""
    return bool(GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()))
