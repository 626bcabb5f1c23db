"""What TensorFlow's and Keras' users expect beyond the shared suite."""

from __future__ import annotations

import sys
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _adapters import cut_into
from _tolerances import assert_within, gradient_error, relative_error, tolerance
from ntxent import reference

pytestmark = pytest.mark.only("tensorflow")

MODES: dict[str, Any] = {"eager": None, "graph": {}, "XLA": {"jit_compile": True}}
SOME, NONE = (None, 3), (None, None)


@pytest.fixture
def tf() -> Any:
    import tensorflow as tf

    tf.keras.utils.set_random_seed(0)
    return tf


@pytest.fixture(params=["dense", "tiled", "tiles of 4"])
def implementation(request: Any, monkeypatch: Any) -> str:
    from ntxent.tensorflow._pairs import tiled

    if request.param == "tiles of 4":
        cut_into(monkeypatch, tiled, 4)
        return "tiled"
    return str(request.param)


def views_of(images: int = 5, dim: int = 3, dtype: str = "float64") -> list[Any]:
    rng = np.random.default_rng(images)
    return [rng.standard_normal((images, dim)).astype(dtype) for _ in range(2)]


def in_mode(mode: str, fn: Any, **options: Any) -> Any:
    import tensorflow as tf

    return fn if MODES[mode] is None else tf.function(fn, **MODES[mode], **options)


def derivatives(implementation: str, mode: str = "eager", **options: Any) -> Any:
    """A function (*views, temperature) -> loss and its gradient of each."""
    import tensorflow as tf

    from ntxent.tensorflow import nt_xent

    def fn(*inputs: Any) -> list[Any]:
        inputs = tuple(map(tf.convert_to_tensor, inputs))
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = nt_xent(*inputs[:-1], temperature=inputs[-1], implementation=implementation)
        return [loss, *tape.gradient(loss, inputs)]

    return in_mode(mode, fn, **options)


def assert_right(found: Any, views: Any, temperature: float) -> None:
    """Loss and gradients, of the views and of the temperature, are those of the loops."""
    loss, *grads, by_temperature = (np.asarray(x) for x in found)
    dtype, rows = loss.dtype.name, reference.row_losses(*views, temperature=temperature)
    bound = tolerance(dtype, "gradient", temperature)
    error = relative_error(loss, reference.nt_xent(*views, temperature=temperature))
    assert_within(error, tolerance(dtype, "loss", temperature), "loss")
    truth, slope = reference.gradients(*views, temperature=temperature)
    lengths = [np.linalg.norm(view, axis=1, keepdims=True) for view in views]
    error = gradient_error(grads, truth, lengths, rows, temperature, dtype)
    assert_within(error, bound, "gradient")
    terms = -np.expm1(-np.mean(rows)) / temperature**2
    assert_within(relative_error(by_temperature, slope, terms), bound, "temperature's gradient")


@pytest.mark.covering
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_right_on_both_sides_of_the_shift(implementation: str, mode: str, dtype: str) -> None:
    views = views_of(9, dtype=dtype)
    fn = derivatives(implementation, mode)
    for temperature in (0.5, 0.05, 0.01, 0.001):
        assert_right(fn(*views, np.array(temperature, dtype)), views, temperature)


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


def test_a_persistent_tape_and_one_watched_input(tf: Any, implementation: str) -> None:
    from ntxent.tensorflow import nt_xent

    inputs = [tf.constant(x, tf.float64) for x in (*views_of(), 0.2)]
    for place, expected in enumerate(derivatives(implementation)(*inputs)[1:]):
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(inputs[place])
            loss = nt_xent(*inputs[:2], temperature=inputs[2], implementation=implementation)
        for _ in range(2):
            grads = tape.gradient(loss, inputs)
            assert [grad is None for grad in grads].count(True) == 2
            error = relative_error(grads[place].numpy(), expected, 1)
            assert_within(error, 1e-14, "gradient")


@pytest.mark.parametrize("mode", MODES)
def test_second_and_third_derivatives(tf: Any, implementation: str, mode: str) -> None:
    """Of a product and a penalty with the gradient: dense's and a quotient's; with a zero row."""
    from ntxent.tensorflow import nt_xent

    z1, z2 = views_of()
    direction = np.cos(np.arange(15.0)).reshape(5, 3)

    def orders(name: str, *inputs: Any) -> list[Any]:
        with tf.GradientTape() as third:
            third.watch(inputs)
            with tf.GradientTape() as second:
                second.watch(inputs)
                with tf.GradientTape() as tape:
                    tape.watch(inputs)
                    loss = nt_xent(*inputs[:2], temperature=inputs[2], implementation=name)
                grads = tape.gradient(loss, inputs)
                slope = tf.reduce_sum(grads[0] * direction + grads[1] ** 2) + grads[2]
            products = second.gradient(slope, inputs)
            penalty = tf.reduce_sum(products[0] ** 2 + products[1] * direction)
        return [slope, *products, *third.gradient(penalty, inputs)]

    def run(name: str, mode: str, step: float = 0.0) -> list[Any]:
        inputs = z1 + step * direction, z2, 0.2 + step
        fn = in_mode(mode, partial(orders, name))
        return [x.numpy() for x in fn(*(tf.constant(x, tf.float64) for x in inputs))]

    if mode == "eager":
        up, middle, down = (run(implementation, "eager", step) for step in (1e-6, 0, -1e-6))
        product = (middle[1] * direction).sum() + middle[3]
        quotient = (up[0] - down[0]) / 2e-6
        assert_within(relative_error(quotient, product), 1e-7, "difference quotient")
    z1[2] = 0
    for got, expected in zip(run(implementation, mode), run("dense", "eager"), strict=True):
        error = relative_error(got, expected, np.abs(expected).max())
        assert_within(error, 1e-10, "derivative of dense")


@pytest.mark.parametrize("mode", MODES)
def test_variables_of_tensorflow_and_keras_get_their_gradients(
    tf: Any, implementation: str, mode: str
) -> None:
    """As views, and as the temperature, which may be a layer's weight."""
    keras = tf.keras
    layer = keras.layers.Layer(dtype="float64")
    weight = layer.add_weight(shape=(), initializer="ones")
    z1, z2 = views_of()
    views = tf.Variable(z1), keras.Variable(z2, dtype="float64")
    for tau in (tf.Variable(1.0, dtype="float64"), weight):

        def fn(tau: Any = tau) -> Any:
            from ntxent.tensorflow import nt_xent

            with tf.GradientTape() as tape:
                loss = nt_xent(*views, temperature=tau, implementation=implementation)
            return [loss, *tape.gradient(loss, [*views, tau])]

        step = in_mode(mode, partial(fn, tau))
        for factor, temperature in ((1, 0.5), (2, 0.25)):
            views[0].assign(factor * z1 + 1)
            tau.assign(temperature)
            assert_right(step(), (factor * z1 + 1, z2), temperature)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(tf: Any, implementation: str, dtype: str) -> None:
    """A float32 loss, and gradients in the dtype of the views."""
    views = [tf.cast(view, dtype) for view in views_of()]
    loss, *grads, _ = derivatives(implementation)(*views, tf.constant(0.2))
    assert loss.dtype == tf.float32
    assert {grad.dtype for grad in grads} == {tf.as_dtype(dtype)}
    wide = [tf.cast(view, tf.float64).numpy() for view in views]
    error = relative_error(loss.numpy(), reference.nt_xent(*wide, temperature=0.2))
    assert_within(error, tolerance("float32", "loss", 0.2), "loss of the rounded views")


def test_tiles_that_xla_compiles(tf: Any, monkeypatch: Any) -> None:
    """As above 2048 rows, where their number is known: eagerly and in a graph."""
    from ntxent.tensorflow._pairs import tiled

    cut_into(monkeypatch, tiled, 8)
    monkeypatch.setattr(tiled, "COMPILED_ROWS", 16)
    views = views_of(9, dtype="float32")
    for mode in ("eager", "graph"):
        for temperature in (0.5, 0.01):
            inputs = *views, np.float32(temperature)
            found = derivatives("tiled", mode)(*inputs)
            assert_right(found, views, float(inputs[-1]))


def shapes_in(graph: Any) -> list[tuple[int, ...]]:
    """Of every output of every operation in a graph and its functions, loops' bodies included."""
    definition = graph.as_graph_def(add_shapes=True)
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    assert all("_output_shapes" in node.attr for node in nodes)
    shapes = [shape for node in nodes for shape in node.attr["_output_shapes"].list.shape]
    return [tuple(dim.size for dim in shape.dim) for shape in shapes if not shape.unknown_rank]


def test_loops_begin_past_one_tile(monkeypatch: Any) -> None:
    from ntxent.tensorflow._pairs import tiled

    cut_into(monkeypatch, tiled, 4)
    for images, loops in ((tiled.ALONE // 2, False), (tiled.ALONE // 2 + 1, True)):
        fn = derivatives("tiled", "graph").get_concrete_function(*views_of(images), np.float64(0.2))
        definition = fn.graph.as_graph_def()
        nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
        assert any("While" in node.op for node in nodes) == loops


@pytest.mark.parametrize("compiled_rows", [400, 401])
@pytest.mark.parametrize(("mode", "budget"), [("graph", 3), ("XLA", 0), ("XLA", 3)])
def test_no_operation_in_the_graph_makes_a_matrix(
    mode: str, budget: int, compiled_rows: int, monkeypatch: Any
) -> None:
    """Tiles are kept within the budget, and only in a function that XLA compiles whole."""
    from ntxent.tensorflow._pairs import tiled

    cut_into(monkeypatch, tiled, 64)
    monkeypatch.setattr(tiled, "COMPILED_ROWS", compiled_rows)
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
