"""What TensorFlow's users expect of graphs: any batch size, no matrix, nothing traced again."""

from __future__ import annotations

import sys
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _adapters import cut_into
from _tensorflow_nt_xent import (
    IMPLEMENTATIONS,
    assert_right,
    chosen,
    derivatives,
    in_mode,
    views_of,
)
from _tolerances import assert_within, relative_error, tolerance
from ntxent import reference

pytestmark = pytest.mark.only("tensorflow")

SOME, NONE = (None, 3), (None, None)


@pytest.fixture
def tf() -> Any:
    import tensorflow as tf

    tf.keras.utils.set_random_seed(0)
    return tf


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request: Any, monkeypatch: Any) -> str:
    return chosen(request.param, monkeypatch)


@pytest.mark.covering(("mode", "implementation"), ("mode", "shapes"), pairs=False)
@pytest.mark.parametrize(
    ("mode", "shapes"),
    [(mode, [shape] * 2) for mode in ("graph", "XLA") for shape in (SOME, NONE)]
    + [("graph", [NONE, (9, None)]), ("graph", [(None, 3), (9, None)])],
    ids=str,
)
def test_one_graph_serves_every_batch_size(
    tf: Any, implementation: str, mode: str, shapes: Any
) -> None:
    """What is known of one view's shape is known of both."""
    signature = [tf.TensorSpec(shape, tf.float64) for shape in (*shapes, ())]
    fn = derivatives(implementation, mode, input_signature=signature)
    for images in (9,) if shapes[1][0] else (5, 1, 9) if mode == "graph" else (5, 9):
        views = views_of(images)
        assert_right(fn(*views, 0.2), views, 0.2)
    assert fn.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("mode", ["graph", "XLA"])
def test_both_directions_of_a_batch_of_unknown_size(
    tf: Any, implementation: str, mode: str
) -> None:
    """What columns send back starts after the rows, however many those turn out to be."""
    from ntxent.tensorflow import info_nce

    def fn(*pair: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(pair)
            loss = info_nce(*pair, symmetric=True, implementation=implementation)
        return tape.gradient(loss, pair)

    views = [view[:5] for view in views_of(9)]
    signature = [tf.TensorSpec(SOME, tf.float64)] * 2
    for found, expected in zip(
        in_mode(mode, fn, input_signature=signature)(*views),
        in_mode("eager", fn)(*map(tf.constant, views)),
        strict=True,
    ):
        error = relative_error(found.numpy(), expected.numpy(), np.abs(expected).max())
        assert_within(error, 1e-14, "gradient")


@pytest.mark.parametrize("mode", ["graph", "XLA"])
def test_sizes_that_turn_out_to_differ_are_an_error(
    tf: Any, implementation: str, mode: str
) -> None:
    """Never a number: ten ids fill as many tiles of 4 as nine images do."""
    from ntxent.tensorflow import nt_xent

    def fn(z1: Any, z2: Any, ids: Any) -> Any:
        return nt_xent(z1, z2, ids=ids, implementation=implementation)

    specs = [tf.TensorSpec(SOME), tf.TensorSpec(NONE), tf.TensorSpec([None], tf.int32)]
    fn = in_mode(mode, fn, input_signature=specs)
    for n1, n2, ids, d in ((9, 10, 9, 3), (1, 9, 9, 3), (9, 9, 10, 3), (9, 9, 1, 3), (9, 9, 9, 1)):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"must match|expected shape"):
            fn(tf.ones((n1, 3)), tf.ones((n2, d)), tf.range(ids))
    views = views_of(9, dtype="float32")
    error = relative_error(fn(*views, tf.range(9)).numpy(), reference.nt_xent(*views))
    assert_within(error, tolerance("float32", "loss", 0.1), "equal sizes")


def test_tiles_that_xla_compiles(tf: Any, monkeypatch: Any) -> None:
    """As above 2048 rows, where their number is known: eagerly and in a graph."""
    from ntxent.tensorflow._pairs import graphs, tiled

    cut_into(monkeypatch, tiled, 8)
    monkeypatch.setattr(graphs, "COMPILED_ROWS", 16)
    views = views_of(9, dtype="float32")
    for mode in ("eager", "graph"):
        for temperature in (0.5, 0.01):
            inputs = *views, np.float32(temperature)
            found = derivatives("tiled", mode)(*inputs)
            assert_right(found, views, float(inputs[-1]))


def nodes_of(graph: Any, **options: Any) -> list[Any]:
    """Of a graph and its functions, loops' bodies included."""
    definition = graph.as_graph_def(**options)
    return [*definition.node, *(n for f in definition.library.function for n in f.node_def)]


def shapes_in(graph: Any) -> list[tuple[int, ...]]:
    """Of every output of every operation."""
    nodes = nodes_of(graph, add_shapes=True)
    assert all("_output_shapes" in node.attr for node in nodes)
    shapes = [shape for node in nodes for shape in node.attr["_output_shapes"].list.shape]
    return [tuple(dim.size for dim in shape.dim) for shape in shapes if not shape.unknown_rank]


def test_loops_begin_past_one_tile(monkeypatch: Any) -> None:
    from ntxent.tensorflow._pairs import tiled

    cut_into(monkeypatch, tiled, 4)
    for images, loops in ((tiled.ALONE // 2, False), (tiled.ALONE // 2 + 1, True)):
        fn = derivatives("tiled", "graph").get_concrete_function(*views_of(images), np.float64(0.2))
        assert any("While" in node.op for node in nodes_of(fn.graph)) == loops


@pytest.mark.parametrize("compiled_rows", [400, 401])
@pytest.mark.parametrize(("mode", "budget"), [("graph", 3), ("XLA", 0), ("XLA", 3)])
def test_no_operation_in_the_graph_makes_a_matrix(
    mode: str, budget: int, compiled_rows: int, monkeypatch: Any
) -> None:
    """Tiles are kept within the budget, and only in a function that XLA compiles whole."""
    from ntxent.tensorflow._pairs import graphs, tiled

    cut_into(monkeypatch, tiled, 64)
    monkeypatch.setattr(graphs, "COMPILED_ROWS", compiled_rows)
    monkeypatch.setattr(tiled, "KEEP_BYTES", budget * 58**2 * 4)
    kept = budget if mode == "XLA" else 0
    views = views_of(200, 8, "float32")
    found = {}
    for name in ("dense", "tiled"):
        fn = derivatives(name, mode).get_concrete_function(*views, np.float32(0.1))
        found[name] = shapes_in(fn.graph)
    assert max(map(prod, found["dense"])) == 400**2
    assert (58, 58) in found["tiled"]  # the walk reaches the loops: 7 tiles of 58
    assert ((kept, 58, 58) in found["tiled"]) == (kept > 0)
    assert max(map(prod, found["tiled"])) <= max(max(kept, 1) * 58**2, 7 * 58 * 8)
    assert all(size >= 0 for shape in found["tiled"] for size in shape)  # none is unknown


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("loops", [True, False])
def test_no_tape_watches_the_tiles(tf: Any, mode: str, loops: bool, monkeypatch: Any) -> None:
    """One that did would keep every tile, the whole matrix, for a derivative of the loops."""
    from ntxent.tensorflow import nt_xent
    from ntxent.tensorflow._pairs import tiled

    cut_into(monkeypatch, tiled, 2 if loops else 512)

    def fn(*inputs: Any) -> list[Any]:
        seen = []
        for name in ("forward", "backward"):
            call = getattr(tiled, name)
            spy = lambda *args, c=call: seen.append(c(*args)) or seen[-1]  # noqa: E731
            monkeypatch.setattr(tiled, name, spy)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(inputs)
            grads = tape.gradient(nt_xent(*inputs), inputs)
            tiles = tf.nest.flatten(seen)
        # log-sum-exp and divisor of rows, nothing of columns, the tile if it is one, the gradient
        assert [x is None for x in tiles] == [False, False, True, loops, False]
        assert tape.gradient(grads[0], inputs)[0] is not None
        return [tape.gradient(x, inputs) for x in tiles if x is not None]

    found = in_mode(mode, fn)(*map(tf.constant, views_of()))
    assert found == [(None, None)] * (3 if loops else 4)


@pytest.mark.parametrize("kind", ["function", "Keras loss"])
def test_no_retracing_and_nothing_for_autograph(
    tf: Any, implementation: str, kind: str, monkeypatch: Any, caplog: Any
) -> None:
    from ntxent import _formula
    from ntxent.tensorflow import NTXentLoss, nt_xent

    losses, callers = _formula.row_losses, []

    def spy(*args: Any) -> Any:
        callers.append(Path(sys._getframe(1).f_code.co_filename).name)
        return losses(*args)

    monkeypatch.setattr(_formula, "row_losses", spy)
    loss = partial(nt_xent, implementation=implementation)
    fn = tf.function(loss if kind == "function" else NTXentLoss(implementation=implementation))
    tf.get_logger().addHandler(caplog.handler)
    for images in (5, 5, 9, 9):
        fn(*map(tf.constant, views_of(images)))
    tf.get_logger().removeHandler(caplog.handler)
    assert fn.experimental_get_tracing_count() == 2
    assert callers == ["_formula.py"] * 2  # converted code would be in a file of AutoGraph's
    assert "AutoGraph" not in caplog.text


def test_eager_calls_trace_the_tiles_once_for_all_sizes(monkeypatch: Any) -> None:
    from ntxent.tensorflow._pairs import tiled

    traced: list[int] = []
    cut_into(monkeypatch, tiled, 5)
    for name in ("found", "gradients"):
        call = getattr(tiled, name)
        spy = lambda *args, c=call: traced.append(images) or c(*args)  # noqa: E731
        monkeypatch.setattr(tiled, name, spy)
    for images in (7, 8, 9, 10, 7):
        derivatives("tiled")(*views_of(images, 4), np.float64(0.2))
    assert set(traced) == {7, 8}  # the second size is the last to be traced
