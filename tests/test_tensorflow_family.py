"""What users of TensorFlow and Keras expect of `sup_con` and `info_nce` beyond the shared suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _small_family import LABELS, assert_near, rows
from ntxent import reference

pytestmark = pytest.mark.only("tensorflow")


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("implementation", ["dense", "tiled"])
def test_tensorflow_graphs_of_unknown_sizes(implementation: str, xla: bool) -> None:
    import tensorflow as tf

    from ntxent.tensorflow import info_nce, sup_con

    table, integers = tf.TensorSpec([None, 5], tf.float64), tf.TensorSpec([None], tf.int64)

    @tf.function(input_signature=[table, integers], jit_compile=xla)
    def by_labels(z: Any, labels: Any) -> Any:
        return sup_con(z, labels, implementation=implementation)

    @tf.function(input_signature=[table, integers], jit_compile=xla)
    def slope(z: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(z)
            loss = sup_con(z, labels, implementation=implementation)
        return tape.gradient(loss, z)

    @tf.function(input_signature=[table] * 3 + [integers], jit_compile=xla)
    def by_pairs(q: Any, k: Any, queue: Any, ids: Any) -> Any:
        return info_nce(q, k, queue, ids=ids, symmetric=True, implementation=implementation)

    for count in (8, 6):
        (z,), labels = rows(count), LABELS[:count]
        got = by_labels(z, labels)
        assert_near(got, reference.sup_con(z, labels), 1e-12, "sup_con")
        assert by_labels(z, np.arange(count)) == 0  # no two alike
        assert not np.any(slope(z, np.arange(count)))
        q, k, queue = rows(count, 3)
        ids = np.arange(2 * count) // 2
        expected = reference.info_nce(q, k, queue, ids=ids, symmetric=True)
        got = by_pairs(q, k, queue, ids)
        assert_near(got, expected, 1e-12, "info_nce")


def test_ids_of_a_known_number_with_a_batch_of_an_unknown_one() -> None:
    """Served where they fit once it runs, an error where they don't."""
    import tensorflow as tf

    from ntxent.tensorflow import nt_xent

    @tf.function(input_signature=[tf.TensorSpec([None, 5], tf.float64)])
    def step(z: Any) -> Any:
        return nt_xent(z, z[::-1], ids=tf.constant([0, 0, 1, 2]))

    (z,) = rows(4)
    expected = reference.nt_xent(z, z[::-1], ids=[0, 0, 1, 2])
    assert_near(step(z), expected, 1e-12, "loss")
    with pytest.raises(tf.errors.InvalidArgumentError):
        step(rows(5)[0])


@pytest.mark.parametrize(
    "reduction", ["sum_over_batch_size", "mean_with_sample_weight", "sum", "none"]
)
def test_keras_losses_are_the_functions(reduction: str) -> None:
    """Labels stay integers: 2^24 and 2^24 + 1 are different ones."""
    import keras
    import tensorflow as tf

    from ntxent.tensorflow import InfoNCELoss, SupConLoss, info_nce, sup_con

    word = reduction if reduction in {"sum", "none"} else "mean"
    z, q, k = (tf.constant(x, tf.float32) for x in rows(arrays=3))
    loss = SupConLoss(temperature=0.3, reduction=reduction)
    expected = sup_con(z, tf.constant(LABELS), temperature=0.3, reduction=word)
    for labels in (LABELS, LABELS[:, None]):
        assert_near(loss(labels, z), expected, 1e-6, "sup_con")
    weights = np.arange(8.0)
    if reduction == "none":
        weighted = loss(LABELS, z, weights)
        assert_near(weighted, expected * weights, 1e-6, "weights")
    pairs = InfoNCELoss(temperature=0.3, symmetric=True, reduction=reduction)
    expected = info_nce(q, k, temperature=0.3, symmetric=True, reduction=word)
    assert_near(pairs(k, q), expected, 1e-6, "info_nce")
    for each in (loss, pairs):
        again = keras.losses.deserialize(keras.losses.serialize(each))
        assert type(again) is type(each)
        assert again.get_config() == each.get_config()
    with pytest.raises(TypeError, match="labels must be integers"):
        loss(LABELS.astype("float32"), z)


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")  # Keras' own
def test_fit_with_labels_then_save_and_load(tmp_path: Path) -> None:
    """`model.compile(loss=SupConLoss())`, two epochs; classes draw together."""
    import keras

    from ntxent.tensorflow import SupConLoss

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 96) + 2**24
    x = (rng.standard_normal((3, 6))[labels % 3] + rng.standard_normal((96, 6))).astype("float32")
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    model.compile(optimizer=keras.optimizers.Adam(0.05), loss=SupConLoss(temperature=0.3))
    before = model.evaluate(x, labels, batch_size=96, verbose=0)
    history = model.fit(x, labels, batch_size=32, epochs=2, verbose=0).history["loss"]
    after = model.evaluate(x, labels, batch_size=96, verbose=0)
    assert len(history) == 2
    assert after < before
    exact = reference.sup_con(model.predict(x, verbose=0), labels, temperature=0.3)
    assert_near(after, exact, 1e-5, "loss")
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_near(again.evaluate(x, labels, batch_size=96, verbose=0), after, 1e-6, "loaded")
