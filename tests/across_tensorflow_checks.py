"""Checks of losses over two replicas, in a process of their own, as `across_tensorflow` is.

python tests/across_tensorflow_checks.py NAME ...         prints each name when it is done
python tests/across_tensorflow_checks.py --all NAME ...   of more cases
"""

from __future__ import annotations

import contextlib
import sys
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import keras
import numpy as np
import pytest
import tensorflow as tf

from _covering import each_once
from _shards import GRADIENT, errors, few_positives
from across_tensorflow import IMPLEMENTATIONS, SIZES, each, found, local, mirrored
from ntxent.tensorflow import InfoNCELoss, NTXentLoss, SupConLoss, info_nce, nt_xent, sup_con

SOME: Any = each_once  # or `list`, of all


def split(rows: Any) -> list[Any]:
    """The shards of a batch."""
    ends = np.cumsum([0, *SIZES])
    return [rows[start:end] for start, end in pairwise(ends)]


def check_eager() -> None:
    """Without any graph."""
    for name in ("nt_xent", "sup_con", "info_nce, symmetric, ids"):
        for implementation in IMPLEMENTATIONS:
            results = found(mirrored(), name, SIZES, implementation, graph=False)
            assert max(errors(name, SIZES, *results)) < GRADIENT, name


def whole_and_shards(function: Any, *arrays: Any) -> tuple[list[Any], list[Any]]:
    """What a function of a batch and `cross_replica` gives, of the whole and of shards joined."""
    strategy = mirrored()
    whole = function(*map(tf.constant, arrays), cross_replica=False)
    parts = [each(strategy, split(x)) for x in arrays]
    run = tf.function(lambda *args: strategy.run(function, args, {"cross_replica": True}))
    joined = [np.concatenate([np.atleast_1d(y) for y in local(strategy, x)]) for x in run(*parts)]
    return [np.atleast_1d(x) for x in whole], joined


def assert_near(found: Any, expected: Any, bound: float = GRADIENT) -> None:
    """Relative to the largest entry; NaN is far."""
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error < bound, (error, bound)


def views(columns: int = 7) -> Any:
    """Two views of a batch."""
    return np.random.default_rng(0).standard_normal((2, sum(SIZES), columns))


def gradients(inputs: Any, loss: Any, **options: Any) -> Any:
    """Of a loss, with respect to all that it is given."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = loss(*inputs, **options)
    return tape.gradient(value, inputs)


def penalty(*inputs: Any, **options: Any) -> Any:
    """The sum of squares of the gradient."""
    return sum(tf.reduce_sum(x**2) for x in gradients(inputs, **options))


def of_two_classes(z: Any, **options: Any) -> Any:
    """`sup_con` of every other row; the first shard has an even number of them."""
    return sup_con(z, tf.range(tf.shape(z)[0]) % 2, **options)


def check_second_derivatives() -> None:
    """Of a penalty: a shard's gradient is W times the whole batch's, so this W^2 times."""
    both = partial(info_nce, symmetric=True)
    every = list(product((nt_xent, info_nce, both, of_two_classes), IMPLEMENTATIONS))
    few = [(nt_xent, "tiled"), (both, "tiled"), (of_two_classes, "tiled"), (both, "dense")]
    for loss, implementation in few if SOME is each_once else every:
        of_penalty = partial(penalty, loss=loss, implementation=implementation)

        def slope(*inputs: Any, loss: Any = of_penalty, **options: Any) -> Any:
            return gradients(inputs, loss, **options)

        given = views()[:1] if loss is of_two_classes else views()
        for whole, parts in zip(*whole_and_shards(slope, *given), strict=True):
            assert_near(parts / len(SIZES) ** 2, whole)


def check_shifted_scores() -> None:
    """Where no exponential fits the dtype, and where the tiles of many rows are compiled."""
    from ntxent.tensorflow._pairs import graphs, tiled

    before = tiled.TILE, tiled.ALONE, graphs.COMPILED_ROWS
    tiled.TILE, tiled.ALONE = 4, 8
    given = *views(), views()[0] + 1  # with a queue

    def slope(*inputs: Any, tau: float, **more: Any) -> Any:
        loss = partial(info_nce, temperature=tau, symmetric=True)
        return gradients(inputs, loss, **more)

    for tau, compiled_rows in SOME(product((0.001, 0.1), (2048, 2))):
        graphs.COMPILED_ROWS = compiled_rows
        for whole, parts in zip(*whole_and_shards(partial(slope, tau=tau), *given), strict=True):
            assert_near(parts / len(SIZES), whole)
    tiled.TILE, tiled.ALONE, graphs.COMPILED_ROWS = before


def check_ids() -> None:
    """Of every integer dtype, also such as collectives don't take."""
    numbers = np.arange(sum(SIZES)) % 5
    for dtype in ("uint8", "int8", "int16", "uint32", "uint64", "int64"):

        def fn(z1: Any, z2: Any, ids: Any, cross_replica: bool) -> Any:
            return [nt_xent(z1, z2, ids=ids, cross_replica=cross_replica)]

        whole, parts = whole_and_shards(fn, *views(), numbers.astype(dtype))
        assert_near(parts[0].mean(), whole[0])


def check_nan() -> None:
    """In a row of one replica: no replica's loss is a number."""
    broken = views()
    broken[1, -1, 0] = np.nan
    for loss in (nt_xent, info_nce):
        _, both = whole_and_shards(lambda *x, loss=loss, **how: [loss(*x, **how)], *broken)
        assert np.isnan(both).all()


def check_few_positives() -> None:
    """Of the function and of the Keras loss: none, and all is 0; a pair on different replicas."""

    def slope(z: Any, labels: Any, cross_replica: bool) -> Any:
        options = {"cross_replica": cross_replica}
        with tf.GradientTape() as tape:
            tape.watch(z)
            loss = sup_con(z, labels, **options)
            keras_loss = SupConLoss(dtype="float64", **options)(labels, z)
        return loss, keras_loss, tape.gradient([loss, keras_loss], z)

    for pair in (False, True):
        whole, (loss, keras_loss, grad) = whole_and_shards(slope, *few_positives(SIZES, pair))
        # A shard's gradient is twice the whole batch's, and once by the share that Keras takes.
        assert pair or not any(x.any() for x in (loss, keras_loss, grad))
        if pair:
            assert_near(loss.mean(), whole[0])
            assert_near(keras_loss.sum(), whole[1])
            assert_near(grad, whole[2] * 1.5)


def check_refusals() -> None:
    """Outside of `strategy.run`, no bool, and bad rows or longer ones on one replica."""
    strategy, given = mirrored(), list(map(tf.constant, views()))
    assert nt_xent(*given, cross_replica=True) == nt_xent(*given)  # one replica, without strategy
    for call in (partial(nt_xent, *given), NTXentLoss):
        with pytest.raises(TypeError, match="cross_replica must be True or False; got int 1"):
            call(cross_replica=1)
    call, words = partial(nt_xent, *given, cross_replica=True), "that you pass to strategy.run"
    with strategy.scope(), pytest.raises(RuntimeError, match=words):
        call()
    with strategy.scope(), pytest.raises(tf.errors.InvalidArgumentError, match=words):
        tf.function(call)()
    run = tf.function(lambda z: strategy.run(lambda z: nt_xent(z, z, cross_replica=True), (z,)))
    with pytest.raises(ValueError, match="must be 2-d"):
        run(each(strategy, [given[0], given[0][0]]))
    narrow = each(strategy, [given[0], given[0][:, :5]])
    with pytest.raises(tf.errors.OpError, match=r"[Ss]hape"):
        run(narrow)


def reduced(kind: Any, weighted: bool, reduction: str, *given: Any, cross_replica: bool) -> Any:
    """A Keras loss and its gradient."""
    z, target, weight = given
    loss = kind(reduction=reduction, dtype="float64", cross_replica=cross_replica)
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = loss(target, z, weight if weighted else None)
    return value, tape.gradient(value, z)


def check_keras_reductions() -> None:
    """The sum over replicas, of losses and of gradients, is that of one process."""
    z1, z2 = views()
    labels, weight = np.array([0, 1, 2, 0, 1, 3, 3, 0, 4]), np.arange(1.0, 10)
    kinds = (NTXentLoss, z2), (SupConLoss, labels), (InfoNCELoss, z2)
    reductions = "sum_over_batch_size", "sum", "mean_with_sample_weight", "none"
    cases = product(range(3), product(reductions, (False, True)))
    for place, (reduction, weighted) in SOME(cases):
        kind, target = kinds[place]
        fn = partial(reduced, kind, weighted, reduction)
        whole, parts = whole_and_shards(fn, z1, target, weight)
        assert_near(parts[0] if reduction == "none" else parts[0].sum(), whole[0])
        assert_near(parts[1], whole[1])


def trained(kind: str, strategy: Any) -> list[Any]:
    """The weights after three steps of `fit`, with the loss over all replicas.

    The last batch is one row, which one of the replicas has.
    """

    class SimCLR(keras.Model):
        def __init__(self, encoder: Any) -> None:
            super().__init__()
            self.encoder = encoder

        def call(self, views: Any) -> Any:
            return [self.encoder(view) for view in views]

        def compute_loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any, **_: Any) -> Any:
            return self.loss(*y_pred)

    x = np.random.default_rng(0).standard_normal((2, 17, 8)).astype("float32")
    data = ((tuple(x),),) if kind == "views" else ((x[0], np.arange(17) % 5),)
    batches = tf.data.Dataset.from_tensor_slices(*data).batch(8)
    with contextlib.nullcontext() if strategy is None else strategy.scope():
        keras.utils.set_random_seed(0)
        layers = [keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(4)]
        model = keras.Sequential(layers)
        loss = SupConLoss(cross_replica=True)
        if kind == "views":
            model, loss = SimCLR(model), NTXentLoss(cross_replica=True)
        model.compile(keras.optimizers.SGD(0.1), loss)
    model.fit(batches, verbose=0)
    return [np.asarray(weight) for weight in model.get_weights()]


def check_fit() -> None:
    """The steps of Keras' `fit` on two replicas are those on one; float32."""
    strategy = mirrored()
    for kind in ("views", "labels"):
        for alone, together in zip(trained(kind, None), trained(kind, strategy), strict=True):
            assert_near(together, alone, 1e-6)


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")
    names = sys.argv[1:]
    if names[0] == "--all":
        SOME, names = list, names[1:]
    for name in names:
        globals()[f"check_{name}"]()
        print(name, flush=True)
