"""What users of other losses of this kind run into: right numbers, and words that help."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from _tolerances import assert_within, relative_error
from ntxent import reference

RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((7, 5))


def compilers(backend: Any) -> list[Callable[..., Any]]:
    """What compiles a function of arrays of this backend; NumPy has nothing of the kind."""
    if backend.name == "torch":
        import torch

        return [partial(torch.compile, fullgraph=True, backend="aot_eager")]
    if backend.name == "jax":
        import jax

        return [jax.jit]
    if backend.name == "tensorflow":
        import tensorflow as tf

        return [partial(tf.function, jit_compile=xla) for xla in (False, True)]
    return []


@pytest.mark.covering(("name", "dtype"))
@pytest.mark.parametrize("dtype", ["float64", "float16"])
@pytest.mark.parametrize("name", ["nt_xent", "sup_con", "info_nce"])
def test_a_temperature_of_one_element_has_a_gradient_of_its_shape(
    backend: Any, implementation: str, name: str, dtype: str
) -> None:
    """As good as a 0-d one, and so are the gradients of the rows."""
    z1, z2 = (backend.from_numpy(x, dtype) for x in (ROWS, ROWS[::-1].copy()))
    labels = backend.from_numpy(np.arange(7) % 3)

    def loss(z1: Any, temperature: Any) -> Any:
        second = labels if name == "sup_con" else z2
        options = {"temperature": temperature, "implementation": implementation}
        return getattr(backend.module, name)(z1, second, **options)

    (value, grads), (expected, expected_grads) = (
        backend.value_and_grad(loss, [z1, backend.from_numpy(np.full(shape, 0.3), dtype)])
        for shape in ((1,), ())
    )
    assert grads[1].shape == (1,)
    assert value == expected
    for got, want in zip(grads, expected_grads, strict=True):
        assert np.array_equal(got.ravel(), want.ravel())
    if dtype == "float64":
        small = 1e-6
        above, below = (
            backend.value(loss, z1, backend.from_numpy(np.full((1,), 0.3 + step)))
            for step in (small, -small)
        )
        error = relative_error(grads[1][0], (above - below) / (2 * small))
        assert_within(error, 1e-8, "gradient")


# A batch of `sup_con` in which no row has a positive


@pytest.mark.covering
@pytest.mark.parametrize("implementation", ["dense", "tiled"])
@pytest.mark.parametrize("dtype", ["float64", "float16"])
@pytest.mark.parametrize("count", [1, 7])
def test_without_a_positive_loss_and_gradients_are_zero(
    backend: Any, implementation: str, count: int, dtype: str
) -> None:
    """One row alone, too; where labels can be read, a warning says so once a call."""
    labels = backend.from_numpy(np.arange(count))

    def loss(z: Any, temperature: Any, reduction: str) -> Any:
        return backend.module.sup_con(
            z,
            labels,
            temperature=temperature,
            reduction=reduction,
            implementation=implementation,
        )

    inputs = [backend.from_numpy(x, dtype) for x in (ROWS[:count], np.array(0.1))]
    for reduction in ("mean", "sum"):
        if backend.device == "cuda":  # where labels aren't read
            value, grads = backend.value_and_grad(partial(loss, reduction=reduction), inputs)
        else:
            words = f"no row has a positive: {count} labels, no two of them equal.*loss is 0.*step"
            with pytest.warns(RuntimeWarning, match=words) as told:
                value, grads = backend.value_and_grad(partial(loss, reduction=reduction), inputs)
            assert len(told) == 1
            assert told[0].filename == __file__
        assert value == 0
        assert not any(grad.any() for grad in grads)
    assert reference.sup_con(ROWS[:count], np.arange(count)) == 0


@pytest.mark.parametrize("implementation", ["dense", "tiled"])
@pytest.mark.parametrize("count", [1, 7])
def test_without_a_positive_it_is_zero_when_compiled(
    backend: Any, implementation: str, count: int
) -> None:
    """Labels are unknown then, so that nothing warns; NaN is not hidden by it."""
    z, labels = backend.from_numpy(ROWS[:count]), backend.from_numpy(np.arange(count))
    broken = ROWS[:count].copy()
    broken[0, 0] = np.nan
    for compiled in compilers(backend):
        step = compiled(partial(backend.module.sup_con, implementation=implementation))
        value, (grad,) = backend.value_and_grad(lambda z, run=step: run(z, labels), [z])
        assert value == 0
        assert not grad.any()
        assert np.isnan(backend.value(step, backend.from_numpy(broken), labels))


@pytest.mark.filterwarnings("ignore:sup_con got a batch:RuntimeWarning")
@pytest.mark.parametrize("implementation", ["dense", "tiled"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(("count", "normalize"), [(1, True), (7, False)])
def test_without_a_positive_bad_data_shows_in_the_loss(
    backend: Any, implementation: str, count: int, normalize: bool, bad: float
) -> None:
    rows = ROWS[:count].copy()
    rows[0, 0] = bad
    options = {"normalize": normalize, "implementation": implementation}
    given = map(backend.from_numpy, (rows, np.arange(count)))
    assert not np.isfinite(backend.value(backend.module.sup_con, *given, **options))


@pytest.mark.only("torch")
def test_a_batch_without_a_positive_among_others_under_vmap() -> None:
    import torch

    from ntxent.torch import sup_con

    z, labels = torch.tensor(ROWS[:4]), torch.tensor([[0, 0, 1, 2], [0, 1, 2, 3]])
    grads, losses = torch.vmap(torch.func.grad_and_value(sup_con), (None, 0))(z, labels)
    assert_within(relative_error(losses[0].item(), reference.sup_con(z, labels[0])), 1e-12, "loss")
    assert not losses[1]
    assert not grads[1].any()


@pytest.mark.only("torch")
@pytest.mark.parametrize("compiled", [False, True])
def test_a_step_without_a_positive_leaves_the_weights_of_a_module(compiled: bool) -> None:
    import torch

    from ntxent.torch import SupConLoss

    torch.manual_seed(0)
    model, loss = torch.nn.Linear(5, 3), SupConLoss(learn_temperature=True)
    before = [x.detach().clone() for x in (*model.parameters(), *loss.parameters())]
    parameters = [*model.parameters(), *loss.parameters()]
    optimizer = torch.optim.SGD(parameters, 0.1)
    rows, labels = torch.tensor(ROWS, dtype=torch.float32), torch.arange(7)

    def step() -> Any:
        return loss(model(rows), labels)

    if compiled:
        torch.compile(step, fullgraph=True, backend="aot_eager")().backward()
    else:
        with pytest.warns(RuntimeWarning, match="no row has a positive") as told:
            step().backward()
        assert len(told) == 1
    optimizer.step()
    for one, other in zip(before, parameters, strict=True):
        assert torch.equal(one, other)


@pytest.mark.only("tensorflow")
@pytest.mark.parametrize(
    ("reduction", "eager"),
    [
        ("sum_over_batch_size", False),
        ("sum_over_batch_size", True),
        ("mean_with_sample_weight", False),
    ],
)
def test_a_last_batch_of_one_row_leaves_keras_weights_finite(reduction: str, eager: bool) -> None:
    """49 rows in batches of 24: the loss of the last row is 0, not NaN."""
    import contextlib

    import keras

    from ntxent.tensorflow import SupConLoss

    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).standard_normal((49, 5)).astype("float32")
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    model.compile(keras.optimizers.SGD(0.1), SupConLoss(reduction=reduction), run_eagerly=eager)
    warned = pytest.warns(RuntimeWarning, match="no row has a positive: 1 label")
    with warned if eager else contextlib.nullcontext():
        history = model.fit(x, np.arange(49) % 4, batch_size=24, verbose=0, shuffle=False)
    assert np.isfinite(history.history["loss"]).all()
    assert all(np.isfinite(x).all() for x in model.get_weights())
    with warned if eager else contextlib.nullcontext():
        assert model.evaluate(x[:1], np.arange(1), verbose=0) == 0
