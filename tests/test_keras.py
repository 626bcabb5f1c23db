"""NTXentLoss as a Keras loss: in compile, fit, save and load."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _adapters import cut_into
from _tolerances import assert_within, relative_error

pytestmark = pytest.mark.only("tensorflow")


@pytest.fixture
def tf() -> Any:
    import tensorflow as tf

    tf.keras.utils.set_random_seed(0)
    return tf


@pytest.fixture
def keras(tf: Any) -> Iterator[Any]:
    """Its policy is restored afterwards."""
    import keras

    policy = keras.mixed_precision.dtype_policy()
    yield keras
    keras.mixed_precision.set_dtype_policy(policy)


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


@pytest.mark.parametrize(
    "choice", [{}, {"denominator": "negatives"}, {"normalize": False}], ids=str
)
def test_the_keras_loss_is_the_function(tf: Any, implementation: str, choice: Any) -> None:
    """Reductions and weights are by images, as everywhere in Keras."""
    from ntxent.tensorflow import NTXentLoss, nt_xent

    z1, z2 = map(tf.constant, views_of())
    options = {"temperature": 0.3, "implementation": implementation, **choice}
    rows = nt_xent(z1, z2, reduction="none", **options).numpy()
    images, weight = rows.reshape(2, 5).mean(0), np.arange(5.0)
    for reduction, reduced in (
        ("sum_over_batch_size", np.mean),
        ("sum", np.sum),
        ("none", np.asarray),
        (None, np.asarray),
    ):
        loss = NTXentLoss(reduction=reduction, dtype="float64", name="mine", **options)
        config = loss.get_config()
        loss = NTXentLoss.from_config(config)
        assert loss.get_config() == config
        assert (loss.name, loss.reduction) == ("mine", reduction)
        error = relative_error(loss(z1, z2).numpy(), reduced(images))
        assert_within(error, 1e-14, "loss")
        error = relative_error(loss(z1, z2, weight).numpy(), reduced(images * weight))
        assert_within(error, 1e-14, "weighted loss")
    assert NTXentLoss()(z1, z2).dtype == tf.float32


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        ({"temperature": -1.0}, ValueError, r"temperature must be positive and finite; got -1\.0"),
        ({"temperature": "x"}, TypeError, r"must be a number here; got str 'x'.*call nt_xent in"),
        ({"denominator": "x"}, ValueError, 'must be one of "all", "one_positive", "negatives"'),
        ({"implementation": "x"}, ValueError, 'implementation must be one of "dense", "tiled"'),
        ({"reduction": "x"}, ValueError, "Invalid value for argument `reduction`"),
    ],
    ids=str,
)
def test_the_keras_loss_refuses_at_construction(bad: Any, error: Any, words: str) -> None:
    from ntxent.tensorflow import NTXentLoss

    with pytest.raises(error, match=words):
        NTXentLoss(**bad)


def tower(keras: Any) -> Any:
    layers = [keras.layers.Dense(16, "relu"), keras.layers.Dense(4)]
    return keras.Sequential([keras.Input((8,)), *layers])


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_a_model_of_both_views_is_trained(keras: Any, policy: str) -> None:
    """SimCLR with one encoder, under XLA as Keras chooses, with a smaller last batch."""
    from ntxent.tensorflow import NTXentLoss

    class SimCLR(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = tower(keras)

        def call(self, views: Any) -> Any:
            return [self.encoder(view) for view in views]

        def compute_loss(
            self, x: Any, y: Any, y_pred: Any, sample_weight: Any, training: bool = True
        ) -> Any:
            return self.loss(*y_pred)

    keras.mixed_precision.set_dtype_policy(policy)
    x, noise = views_of(40, 8, dtype="float32")
    views, model = (x, x + 0.1 * noise), SimCLR()
    model.compile(keras.optimizers.Adam(0.01), NTXentLoss(temperature=0.5))
    losses = model.fit(views, batch_size=16, epochs=3, verbose=0).history["loss"]
    assert losses == sorted(losses, reverse=True)


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")  # Keras' own
def test_fit_on_fixed_targets_then_save_and_load(keras: Any, tmp_path: Path) -> None:
    """y are another model's projections; the loaded model needs no custom_objects."""
    from ntxent.tensorflow import NTXentLoss

    x = views_of(32, 8, dtype="float32")[0]
    y, model = tower(keras).predict(x, verbose=0), tower(keras)
    model.compile("adam", NTXentLoss(temperature=0.3, denominator="negatives"), jit_compile=False)
    losses = model.fit(x, y, batch_size=16, epochs=2, verbose=0).history["loss"]
    assert losses[1] < losses[0]
    weighted = model.evaluate(x, y, sample_weight=np.full(32, 2.0), verbose=0)
    assert weighted == pytest.approx(2 * model.evaluate(x, y, verbose=0))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.loss, NTXentLoss)
    assert loaded.loss.get_config() == model.loss.get_config()
    assert loaded.evaluate(x, y, verbose=0) == pytest.approx(model.evaluate(x, y, verbose=0))
    assert loaded.fit(x, y, batch_size=16, verbose=0).history["loss"][0] < losses[0]


@pytest.mark.parametrize("how", [{}, {"run_eagerly": True}, {"jit_compile": False}], ids=str)
def test_a_last_batch_of_one_row_leaves_the_weights_alone(keras: Any, how: Any) -> None:
    """`fit` on 49 rows in batches of 24 ends with one that has no pair: loss and gradient are 0."""
    from ntxent.tensorflow import SupConLoss

    x, labels = views_of(49, 8, dtype="float32")[0], np.arange(49) % 5
    weights = {}
    for rows in (48, 49):
        keras.utils.set_random_seed(0)
        model = tower(keras)
        model.compile(keras.optimizers.SGD(0.1), SupConLoss(), **how)
        warned = rows == 49 and "run_eagerly" in how
        words = "no row has a positive"
        with pytest.warns(RuntimeWarning, match=words) if warned else contextlib.nullcontext():
            model.fit(x[:rows], labels[:rows], batch_size=24, shuffle=False, verbose=0)
        weights[rows] = model.get_weights()
    start = keras.models.clone_model(model).get_weights()
    for before, after, first in zip(weights[48], weights[49], start, strict=True):
        assert np.isfinite(after).all()
        assert np.array_equal(before, after)
        assert np.abs(after - first).max() > 0
