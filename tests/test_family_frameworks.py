"""What each framework's users expect of `sup_con` and `info_nce`, beyond the shared suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _largest import largest_tensor
from _tolerances import assert_within, relative_error
from ntxent import reference

LABELS = np.array([3, 3, 5, 5, 5, 2**24, 2**24 + 1, 8])


def assert_near(got: Any, expected: Any, bound: float, what: str) -> None:
    """As NumPy arrays, relative to the largest entry."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert_within(relative_error(got, expected, np.abs(expected).max()), bound, what)


def rows(count: int = 8, arrays: int = 1, seed: int = 0) -> list[Any]:
    return list(np.random.default_rng(seed).standard_normal((arrays, count, 5)))


@pytest.mark.only("torch")
@pytest.mark.parametrize("name", ["SupConLoss", "InfoNCELoss"])
def test_torch_modules_are_the_functions(name: str) -> None:
    """Fixed or learned temperature, saved and loaded; options reach the function."""
    import torch

    import ntxent.torch as module

    arrays = [torch.tensor(x) for x in rows(arrays=2)]
    options: dict[str, Any] = {"reduction": "none", "implementation": "dense"}
    function = module.info_nce
    if name == "SupConLoss":
        arrays, function = [arrays[0], torch.tensor(LABELS)], module.sup_con
    else:
        options["symmetric"] = True
    expected = function(*arrays, temperature=0.3, **options)
    fixed = getattr(module, name)(temperature=0.3, **options)
    assert torch.equal(fixed(*arrays), expected)
    assert not list(fixed.parameters())
    learned = getattr(module, name)(temperature=0.3, learn_temperature=True, **options)
    learned(*arrays).sum().backward()
    assert learned.log_temperature.grad != 0
    other = getattr(module, name)(temperature=1.0, learn_temperature=True, **options)
    other.load_state_dict(learned.state_dict())
    assert_near(other(*arrays).detach(), expected, 1e-6, name)
    with pytest.raises(ValueError, match="reduction"):
        getattr(module, name)(reduction="average")
    assert "temperature=0.3" in repr(fixed)


@pytest.mark.only("torch")
@pytest.mark.parametrize("implementation", ["dense", "tiled", "tiles of 4"])
def test_torch_derivatives(implementation: str, monkeypatch: Any) -> None:
    """First and second, with labels of one, two and three rows, a queue and own negatives."""
    import torch

    from ntxent.torch import info_nce, sup_con
    from ntxent.torch._pairs import tiled

    if implementation == "tiles of 4":
        monkeypatch.setattr(tiled, "TILE", 4)
    name = "dense" if implementation == "dense" else "tiled"
    z, q, k, queue = (torch.tensor(x, requires_grad=True) for x in rows(arrays=4))
    own = torch.tensor(np.stack(rows(arrays=3)).swapaxes(0, 1), requires_grad=True)
    tau = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    labels, ids = torch.tensor(LABELS), torch.tensor([0, 0, *range(1, 15)])

    def by_labels(z: Any, tau: Any) -> Any:
        return sup_con(z, labels, temperature=tau, reduction="none", implementation=name)

    def by_pairs(q: Any, k: Any, tau: Any, *more: Any) -> Any:
        options: dict[str, Any] = {"ids": ids if more and more[0] is queue else None}
        return info_nce(
            q, k, *more, temperature=tau, symmetric=True, implementation=name, **options
        )

    for fn, inputs in (
        (by_labels, (z, tau)),
        (by_pairs, (q, k, tau)),
        (by_pairs, (q, k, tau, queue)),
        (by_pairs, (q, k, tau, own)),
    ):
        assert torch.autograd.gradcheck(fn, inputs)
        assert torch.autograd.gradgradcheck(fn, inputs)


@pytest.mark.only("torch")
def test_torch_spends_nothing_on_keys_without_a_gradient(monkeypatch: Any) -> None:
    """A queue of constants costs no product of its own in the backward pass."""
    import torch

    from ntxent.torch import info_nce
    from ntxent.torch._pairs import tiled

    monkeypatch.setattr(tiled, "TILE", 4)
    found = []
    backward = tiled.backward
    monkeypatch.setattr(tiled, "backward", lambda *args: found.append(backward(*args)) or found[-1])
    q, k, queue = (torch.tensor(x) for x in rows(arrays=3))
    q.requires_grad_()
    info_nce(q, k, queue).backward()
    assert len(found) == 2
    assert all(by_keys is None for _, by_keys in found)
    queue.requires_grad_()
    info_nce(q, k, queue).backward()
    assert queue.grad is not None
    assert queue.grad.any()


@pytest.mark.only("torch")
def test_both_directions_come_from_one_pass_over_the_tiles(monkeypatch: Any) -> None:
    import torch

    from ntxent.torch import info_nce
    from ntxent.torch._pairs import tiled

    monkeypatch.setattr(tiled, "TILE", 4)
    fill, count = tiled.Tiles.fill, []
    monkeypatch.setattr(
        tiled.Tiles, "fill", lambda *args, **more: count.append(1) or fill(*args, **more)
    )
    q, k = (torch.tensor(x) for x in rows(20, 2))
    passes = []
    for symmetric in (False, True):
        count.clear()
        info_nce(q, k, symmetric=symmetric)
        passes.append(len(count))
    assert passes == [25, 25]


@pytest.mark.only("torch")
@pytest.mark.parametrize("name", ["sup_con", "info_nce"])
def test_no_torch_operation_makes_a_matrix(name: str, monkeypatch: Any) -> None:
    import torch

    import ntxent.torch as module
    from ntxent.torch._pairs import tiled

    monkeypatch.setattr(tiled, "TILE", 64)
    sizes = {}
    for implementation in ("dense", "tiled"):
        z1, z2 = (torch.randn(400, 8, requires_grad=True) for _ in range(2))
        second = torch.arange(400) % 30 if name == "sup_con" else z2
        with largest_tensor() as largest:
            getattr(module, name)(z1, second, implementation=implementation).backward()
        sizes[implementation] = largest.size
    assert sizes["dense"] == 400**2
    assert sizes["tiled"] <= max(64 * 64, 2 * 400 * 8)  # both towers' rows are one array


@pytest.mark.only("jax")
@pytest.mark.parametrize("implementation", ["dense", "tiled"])
def test_jax_jit_with_traced_labels_and_ids(implementation: str) -> None:
    """Values of integers are unknown while it traces."""
    import jax
    import jax.numpy as jnp

    from ntxent.jax import info_nce, sup_con

    step = jax.jit(jax.value_and_grad(lambda z, y: sup_con(z, y, implementation=implementation)))
    (z,) = (jnp.asarray(x, "float32") for x in rows())
    value, grad = step(z, jnp.asarray(LABELS))
    assert_near(value, reference.sup_con(z, LABELS), 1e-6, "sup_con")
    eager = jax.grad(lambda z: sup_con(z, jnp.asarray(LABELS), implementation=implementation))(z)
    assert_near(grad, eager, 1e-5, "gradient")
    q, k, queue = (jnp.asarray(x, "float32") for x in rows(arrays=3))
    ids = jnp.asarray([0, 0, *range(1, 15)])
    both = jax.jit(
        lambda q, k, n, i: info_nce(q, k, n, ids=i, symmetric=True, implementation=implementation)
    )
    expected = reference.info_nce(q, k, queue, ids=ids, symmetric=True)
    assert_near(both(q, k, queue, ids), expected, 1e-6, "info_nce")


@pytest.mark.only("jax")
def test_jax_takes_a_long_row_off_the_sum_of_its_class() -> None:
    """Without normalisation a class may have rows of very different length."""
    import jax.numpy as jnp

    from ntxent.jax import sup_con

    z = np.array([[3e4, 0], [1e-3, 0.3], [1.3e-3, 2.0], [0, 1e-3]], "float32")
    labels = np.array([0, 0, 0, 1])
    expected = reference.sup_con(z, labels, temperature=10.0, normalize=False)
    got = sup_con(jnp.asarray(z), jnp.asarray(labels), temperature=10.0, normalize=False)
    assert_near(got, expected, 1e-5, "loss")


@pytest.mark.only("jax")
@pytest.mark.parametrize("implementation", ["dense", "tiled"])
def test_jax_vmap_over_batches(implementation: str) -> None:
    import jax
    import jax.numpy as jnp

    from ntxent.jax import info_nce, sup_con

    z = jnp.asarray(rows(arrays=3), "float32")
    labels = jnp.asarray([LABELS, LABELS[::-1], np.arange(8) % 2])
    found = jax.vmap(lambda z, y: sup_con(z, y, implementation=implementation))(z, labels)
    expected = [sup_con(x, y) for x, y in zip(z, labels, strict=True)]
    assert_near(found, np.array(expected), 2e-6, "sup_con")
    found = jax.vmap(
        lambda q, k: info_nce(q, k, z[0], symmetric=True, implementation=implementation)
    )(z, z[::-1])
    expected = [info_nce(q, k, z[0], symmetric=True) for q, k in zip(z, z[::-1], strict=True)]
    assert_near(found, np.array(expected), 2e-6, "info_nce")


@pytest.mark.only("jax")
@pytest.mark.parametrize("name", ["sup_con", "info_nce"])
def test_no_jax_operation_makes_a_matrix(name: str, monkeypatch: Any) -> None:
    import jax

    import ntxent.jax as module

    def largest(jaxpr: Any) -> int:
        sizes = [np.prod(x.aval.shape, dtype=int) for e in jaxpr.eqns for x in e.outvars]
        inner = [getattr(x, "jaxpr", x) for e in jaxpr.eqns for x in jax.tree.leaves(e.params)]
        return max([0, *sizes, *(largest(x) for x in inner if hasattr(x, "eqns"))])

    monkeypatch.setattr("ntxent.jax._pairs.tiled.TILE", 64)
    # room for all tiles but one, and so for none: 28 on and above the diagonal, 49 of two towers
    monkeypatch.setattr(
        "ntxent.jax._pairs.tiled.KEEP_BYTES", {"sup_con": 27, "info_nce": 48}[name] * 58**2 * 4
    )
    z, sizes = jax.numpy.ones((400, 8)), {}
    for implementation in ("dense", "tiled"):

        def step(z: Any, implementation: str = implementation) -> Any:
            second = jax.numpy.arange(400) % 30 if name == "sup_con" else z
            return getattr(module, name)(z, second, implementation=implementation)

        sizes[implementation] = largest(jax.make_jaxpr(jax.value_and_grad(step))(z).jaxpr)
    assert sizes["dense"] == 400**2
    assert sizes["tiled"] <= 64 * 64


@pytest.mark.only("tensorflow")
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


@pytest.mark.only("tensorflow")
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


@pytest.mark.only("tensorflow")
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


@pytest.mark.only("tensorflow")
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
