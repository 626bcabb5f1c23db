"""What users of TensorFlow run into: older graphs, its checks, NumPy's arrays, unknown shapes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ntxent
from _tolerances import assert_within, relative_error, tolerance
from ntxent import reference
from test_tensorflow_across import assert_finished, started

pytestmark = pytest.mark.only("tensorflow")

SCRIPT = Path(__file__).with_name("reported_tensorflow.py")
CHECKS = re.findall(r"^def check_(\w+)", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
PACKAGE = Path(ntxent.__file__).parent
VIEWS = Z1, Z2 = np.random.default_rng(0).standard_normal((2, 7, 3))


@pytest.fixture
def tf() -> Any:
    import tensorflow as tf

    return tf


@pytest.mark.parametrize("names", [CHECKS[:2], *([name] for name in CHECKS[2:])], ids=str)
def test_in_a_process_of_its_own(every: bool, names: list[str]) -> None:
    """What is checked, the script says; of the first two one may follow the other."""
    assert assert_finished(started(SCRIPT, *["--all"] * every, *names), 600).split() == names


# What is Python's own in the package, and so may meet `==`, `in`, `not`, `and` and `or`.
NAMES = {"both", "columns", "cross_replica", "denominator", "dtype", "implementation", "keep"}
NAMES |= {"mirrored", "normalize", "reduction", "shape", "shifted", "symmetric", "turned", "unit"}
NAMES |= {"column", "floats", "large", "unshifted"}  # `isinstance` has seen to it
CALLS = {"accepts", "all", "alone", "any", "backend", "choose", "executing_eagerly", "in_xla"}
CALLS |= {"in_cross_replica_context", "is_number", "isinstance", "len", "needs_shift"}
CALLS |= {"on_tensorflow", "should_invoke_op_callbacks", "unrun"}
ATTRIBUTES = {"columns", "dtype", "filled", "is_floating", "rank", "reduction", "shape"}
ATTRIBUTES |= {"symmetric"}
# `isinstance` has seen that these are integers.
INTEGERS = {"query_ids == key_ids", "self.count % self.tiles != 0"}
INTEGERS |= {"rows >= COMPILED_ROWS", "n <= ALONE"}


def plain(node: ast.AST) -> bool:
    """Whether an expression can't be a tensor."""
    if ast.unparse(node) in INTEGERS:
        return True
    match node:
        case ast.Constant(value=str() | bool() | None) | ast.Set() | ast.Tuple():
            return True
        case ast.Compare(ops=[ast.Is() | ast.IsNot()]):
            return True
        case ast.Compare(left=left, comparators=others):
            return any(map(plain, (left, *others)))
        case ast.BoolOp(values=values):
            return all(map(plain, values))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return plain(operand)
        case ast.Subscript(value=ast.Attribute(attr="shape")):
            return True
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name in CALLS
        case ast.Attribute(attr=name):
            return name in ATTRIBUTES
        case ast.Name(id=name):
            return name in NAMES
    return False


def suspicious(source: str) -> Iterator[str]:
    """Each `==`, `!=`, `in`, `not`, `and` and `or` of what may be a tensor.

    Of two tensors in a graph of TensorFlow 1, they are Python's, of objects.
    """
    for node in ast.walk(ast.parse(source)):
        fine = ast.Is, ast.IsNot, ast.Lt, ast.LtE, ast.Gt, ast.GtE
        if isinstance(node, ast.Compare) and not all(isinstance(op, fine) for op in node.ops):
            bad = not plain(node)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            bad = not plain(node.operand)
        else:
            bad = isinstance(node, ast.BoolOp) and not all(map(plain, node.values[:-1]))
        if bad:
            yield f"{node.lineno}: {ast.unparse(node)}"


SHARED = ("_labels", "_formula", "_pairs/sides", "_pairs/functional_tile")
SOURCES = sorted([*PACKAGE.rglob("tensorflow/**/*.py"), *(PACKAGE / f"{x}.py" for x in SHARED)])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_tensor_is_compared_as_an_object(path: Path) -> None:
    assert list(suspicious(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "line",
    [
        "same = a[:, None] == b",
        "x = found == 0",
        "if top != -math.inf: pass",
        "0 in ids",
        "filled = left.index[row] == 0",
        "not found",
        "c is None and a == b",
        "a or b",
    ],
)
def test_tensors_that_are_compared_as_objects_are_found(line: str) -> None:
    assert len(list(suspicious(line))) == 1


MODES: dict[str, Any] = {
    "eager": lambda tf, fn: fn,
    "graph": lambda tf, fn: tf.function(fn),
    "XLA": lambda tf, fn: tf.function(fn, jit_compile=True),
}


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("dtype", ["float64", ">f8", "float32"])
def test_arrays_of_numpy_are_taken(tf: Any, mode: str, dtype: str) -> None:
    """For every argument, beside tensors too, of any order of bytes."""
    from ntxent.tensorflow import info_nce, nt_xent, sup_con

    z1, z2 = (z.astype(dtype) for z in VIEWS)
    native = z1.astype(z1.dtype.newbyteorder("="))  # TensorFlow's own reads other bytes wrongly
    ids, all_ids = np.arange(7) % 5, np.arange(14) % 5
    temperature, right = np.array(0.25, dtype), {"temperature": 0.25}
    given = {"temperature": temperature}
    labels = [np.arange(7).astype(kind) % 3 for kind in ("uint8", "int64", ">i4")]
    labels.append(labels[0] + np.uint64(2**64 - 3))
    calls = [
        (lambda: nt_xent(z1, z2, ids=ids, **given), reference.nt_xent(*VIEWS, ids=ids, **right)),
        (lambda: nt_xent(tf.constant(native), z2, **given), reference.nt_xent(*VIEWS, **right)),
        *((lambda y=y: sup_con(z1, y, **given), reference.sup_con(Z1, y, **right)) for y in labels),
        (
            lambda: info_nce(z1, z2, z1[::-1], ids=all_ids, **given),
            reference.info_nce(*VIEWS, Z1[::-1], ids=all_ids, **right),
        ),
    ]
    bound = tolerance("float32" if dtype == "float32" else "float64", "loss", 0.25)
    for call, expected in calls:
        found = MODES[mode](tf, call)().numpy()
        assert_within(relative_error(found, expected), bound, "loss")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            (Z1.astype("longdouble"), Z2),
            "view 1 must be of a dtype that TensorFlow has; got a .*128",
        ),
        ((Z1, Z2.astype("float32")), "one dtype; got float64 for view 1 and float32 for view 2"),
        ((Z1, Z2.tolist()), r"view 2 must be a tensorflow\.Tensor for ntxent.tensorflow; got list"),
        ((np.ma.masked_array(Z1), Z2), r"view 1 must be a tensorflow\.Tensor.*MaskedArray"),
        ((Z1 > 0, Z2 > 0), "view 1 must be of a real floating dtype.*got bool"),
    ],
    ids=str,
)
def test_arrays_that_tensorflow_cannot_take_are_refused(given: Any, words: str) -> None:
    from ntxent.tensorflow import nt_xent

    with pytest.raises(TypeError, match=words):
        nt_xent(*given)


@pytest.mark.parametrize(
    "name", ["view 1", "view 2", "ids", "temperature", "z", "labels", "negatives"]
)
def test_a_tensor_of_unknown_rank_is_refused_by_name(tf: Any, name: str) -> None:
    from ntxent.tensorflow import info_nce, nt_xent, sup_con

    calls = {
        "view 1": lambda x: nt_xent(x, Z2),
        "view 2": lambda x: nt_xent(Z1, x),
        "ids": lambda x: nt_xent(Z1, Z2, ids=x),
        "temperature": lambda x: nt_xent(Z1, Z2, temperature=x),
        "z": lambda x: sup_con(x, np.arange(7) % 3),
        "labels": lambda x: sup_con(Z1, x),
        "negatives": lambda x: info_nce(Z1, Z2, x),
    }
    dtype = tf.int32 if name in {"ids", "labels"} else tf.float64
    fn = tf.function(calls[name], input_signature=[tf.TensorSpec(None, dtype)])
    with pytest.raises(ValueError, match=rf"{name} must have a known .* axes.*tf\.ensure_shape"):
        fn.get_concrete_function()


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_forward_mode_needs_dense(tf: Any, mode: str) -> None:
    """Of a direction it is the gradient's product with it; the tiled form says what to do."""
    from ntxent.tensorflow import nt_xent

    z1, z2 = map(tf.constant, VIEWS)

    def product(implementation: str | None) -> Any:
        with tf.autodiff.ForwardAccumulator(z1, z2) as accumulator:
            loss = nt_xent(z1, z2, implementation=implementation)
        return accumulator.jvp(loss)

    expected = (reference.gradients(*VIEWS)[0][0] * Z2).sum()
    found = MODES[mode](tf, product)("dense").numpy()
    assert_within(relative_error(found, expected), 1e-12, "derivative")
    for name in (None, "tiled"):
        with pytest.raises(NotImplementedError, match=r'forward mode.*implementation="dense"'):
            MODES[mode](tf, product)(name)


@pytest.mark.parametrize("mode", ["graph", "XLA"])
def test_an_empty_batch_of_unknown_size(tf: Any, mode: str) -> None:
    """Its mean has no value, which a graph says; XLA knows no errors. Its sum is 0."""
    from ntxent.tensorflow import info_nce, nt_xent, sup_con

    rows, labels = tf.zeros((0, 3)), tf.zeros((0,), tf.int32)
    specs = [tf.TensorSpec((None, 3)), tf.TensorSpec((None,), tf.int32)]
    for loss in (
        lambda z, y, **how: nt_xent(z, z, **how),
        lambda z, y, **how: info_nce(z, z, **how),
        sup_con,
    ):
        fn = MODES[mode](tf, lambda z, y, loss=loss: loss(z, y, reduction="sum"))
        assert fn.get_concrete_function(*specs)(rows, labels).numpy() == 0
        fn = MODES[mode](tf, loss).get_concrete_function(*specs)
        if mode == "graph":
            words = "The loss of an empty batch has no value: leave it out"
            with pytest.raises(tf.errors.InvalidArgumentError, match=words):
                fn(rows, labels)
        assert np.isfinite(fn(tf.ones((2, 3)), tf.ones((2,), tf.int32)))


def test_rows_for_labels_are_refused(tf: Any) -> None:
    """As Keras passes them to `compile(loss=sup_con)`: labels first, and made floats."""
    import keras

    from ntxent.tensorflow import sup_con

    model = keras.Sequential([keras.layers.Dense(2)])
    model.compile("sgd", sup_con)
    words = r"which are rows, and one number a row for z.*compile\(loss=SupConLoss\(\)\)"
    with pytest.raises(TypeError, match=words):
        model.fit(np.eye(4, dtype="float32"), np.array([1, 1, 2, 2]), verbose=0)
    with pytest.raises(TypeError, match=words):
        sup_con(tf.constant([[1.0], [1.0], [2.0], [2.0]]), tf.eye(4))
    with pytest.raises(TypeError, match=r"For labels use sup_con\(z, labels\)"):
        sup_con(tf.constant([1, 1, 2, 2]), tf.eye(4))


def test_keras_on_another_framework_is_refused_at_construction(monkeypatch: Any) -> None:
    """The functions serve all the same."""
    import keras
    import tensorflow as tf

    from ntxent.tensorflow import InfoNCELoss, NTXentLoss, SupConLoss, nt_xent

    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    for loss in (InfoNCELoss, NTXentLoss, SupConLoss):
        with pytest.raises(RuntimeError, match=r'it runs on "jax".*KERAS_BACKEND=tensorflow'):
            loss()
    assert nt_xent(tf.eye(3), tf.eye(3)) < 1


@pytest.mark.skipif(find_spec("jax") is None, reason="Keras needs JAX itself to run on it")
def test_keras_on_jax_is_refused_at_construction() -> None:
    code = "from ntxent.tensorflow import SupConLoss; SupConLoss()"
    process = started("-c", code, KERAS_BACKEND="jax")
    complaints = process.communicate(timeout=300)[1]
    assert "RuntimeError: the losses for Keras of ntxent.tensorflow need Keras" in complaints
    assert 'it runs on "jax". Set the environment variable KERAS_BACKEND=tensorflow' in complaints
