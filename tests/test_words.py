"""What is said to whoever calls a loss as another library's, or another loss, is called."""

from __future__ import annotations

import importlib
import inspect
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from _tolerances import assert_within, relative_error
from ntxent import reference

ROWS = np.random.default_rng(0).standard_normal((7, 5))


def refused(call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """The message."""
    with pytest.raises((TypeError, ValueError)) as found:
        call(*args, **kwargs)
    return str(found.value)


UNKNOWN = {
    ("nt_xent", "tau"): "Here it is temperature. It takes temperature, ids, denominator,",
    ("nt_xent", "t"): "Here it is temperature.",
    ("sup_con", "temp"): "Here it is temperature. It takes z, labels, temperature, normalize,",
    ("info_nce", "tau"): "Here it is temperature. It takes query, key, negatives, temperature,",
    ("nt_xent", "labels"): "For labels use sup_con(z, labels)",
    ("info_nce", "labels"): "For labels use sup_con(z, labels)",
    ("sup_con", "targets"): "Here it is labels.",
    ("nt_xent", "n_views"): "Views are passed one by one, as many as there are: nt_xent(z1, z2).",
    ("sup_con", "base_temperature"): "multiply the loss by temperature / base_temperature.",
    ("sup_con", "contrast_mode"): "Every row is an anchor",
    ("info_nce", "negative_mode"): "(K, d) are shared, (N, M, d) each query's.",
    ("info_nce", "queue"): "Here it is negatives.",
    ("sup_con", "features"): "Here it is z.",
    ("nt_xent", "logit_scale"): "Pass temperature=1 / scale.",
    ("nt_xent", "learn_temperature"): "pass it as an array.",
    ("nt_xent", "teperature"): "Did you mean temperature? It takes",
    (
        "nt_xent",
        "flavour",
    ): "argument 'flavour'. It takes temperature, ids, denominator, normalize,",
}


@pytest.mark.parametrize(("loss", "keyword"), UNKNOWN, ids=str)
def test_an_unknown_keyword_is_told_its_name(backend: Any, loss: str, keyword: str) -> None:
    """In Python's own words first."""
    z = backend.from_numpy(ROWS)
    told = refused(getattr(backend.module, loss), z, z, **{keyword: 0.5})
    assert told.startswith(f"{loss}() got an unexpected keyword argument '{keyword}'. ")
    assert UNKNOWN[loss, keyword] in told


def test_processes_are_told_their_name(backend: Any) -> None:
    ours = {"torch": "group", "jax": "axis_name", "tensorflow": "cross_replica"}.get(backend.name)
    z = backend.from_numpy(ROWS)
    told = refused(backend.module.nt_xent, z, z, gather_with_grad=True)
    assert (f"Here it is {ours}." in told) is (ours is not None)


def test_an_argument_too_many_is_told_its_name(backend: Any) -> None:
    z, labels = backend.from_numpy(ROWS), backend.from_numpy(np.arange(7) % 3)
    told = refused(backend.module.sup_con, z, labels, 0.5)
    assert "sup_con() takes 2 positional arguments but 3 were given." in told
    assert "name it: temperature=0.5. It takes by name temperature, normalize, reduction," in told
    told = refused(backend.module.info_nce, z, z, z, 0.5)
    assert "3 positional arguments but 4 were given. If 0.5 is the temperature, name it" in told


@pytest.mark.parametrize("name", ["NTXentLoss", "SupConLoss", "InfoNCELoss"])
def test_modules_tell_the_names_of_their_arguments(backend: Any, name: str) -> None:
    """PyTorch's and Keras'; others have none."""
    module = getattr(backend.module, name, None)
    if module is None:
        assert backend.name in {"numpy", "jax"}
        return
    told = refused(module, tau=0.5)
    assert f"{name}.__init__() got an unexpected keyword argument 'tau'. Here it is temp" in told
    assert "self" not in told
    assert "name it: temperature=0.07." in refused(module, 0.07)


def test_the_names_cost_functions_nothing_else(backend: Any) -> None:
    """They are pickled, inspected and documented as they were written."""
    for name in ("nt_xent", "sup_con", "info_nce"):
        loss = getattr(backend.module, name)
        assert pickle.loads(pickle.dumps(loss)) is loss
        assert loss.__name__ == loss.__qualname__ == name
        assert str(inspect.signature(loss)) == str(inspect.signature(inspect.unwrap(loss)))
        assert loss.__doc__


OTHERS: dict[str, tuple[Callable[..., Any], str]] = {
    "a number as a view": (
        lambda m, a: m.nt_xent(a(ROWS), a(ROWS), 0.5),
        (
            "view 3 must be a {array}; got the number 0.5. If it is the temperature, name it: "
            "temperature=0.5."
        ),
    ),
    "a number as negatives": (
        lambda m, a: m.info_nce(a(ROWS), a(ROWS), 0.5),
        (
            "negatives must be a {array}; got the number 0.5. If it is the temperature, name it: "
            "temperature=0.5."
        ),
    ),
    "a 0-d array as a view": (
        lambda m, a: m.nt_xent(a(ROWS), a(ROWS), a(np.array(0.5))),
        (
            "view 3 must be rows, of shape (N, d); got shape (). If it is the temperature, name "
            "it: temperature=..."
        ),
    ),
    "labels as a view": (
        lambda m, a: m.nt_xent(a(ROWS), a(np.arange(7))),
        (
            "view 2 must be rows, of shape (N, d); got int64 of shape (7,), as labels or ids are. "
            "For labels use sup_con(z, labels); ids are named: ids=ids."
        ),
    ),
    "labels as keys": (
        lambda m, a: m.info_nce(a(ROWS), a(np.arange(7))),
        (
            "key must be rows, of shape (N, d); got int64 of shape (7,), as labels or ids are. For "
            "labels use sup_con(z, labels); ids are named: ids=ids."
        ),
    ),
    "labels first": (
        lambda m, a: m.sup_con(a(np.arange(7)), a(ROWS)),
        (
            "z must be rows, of shape (N, d); got int64 of shape (7,), as labels or ids are. For "
            "labels use sup_con(z, labels); ids are named: ids=ids."
        ),
    ),
    "a view as labels": (
        lambda m, a: m.sup_con(a(ROWS), a(ROWS)),
        (
            "labels must be integers of shape (n,), one for each row of z; got float64 of shape "
            "(7, 5). For two views without labels use nt_xent(z1, z2); of one-hot labels pass the "
            "argmax."
        ),
    ),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_is_meant_for_another_argument_is_told_so(backend: Any, what: str) -> None:
    call, words = OTHERS[what]
    told = refused(call, backend.module, backend.from_numpy)
    assert told == words.replace("{array}", backend.array_name)


# Lines of which the messages consist: each is run, and gives the right number


def names_of(backend: Any) -> dict[str, Any]:
    """What a user's file has imported."""
    found = {name: getattr(backend.module, name) for name in ("nt_xent", "sup_con")}
    if backend.name == "jax":
        importlib.import_module("jax.numpy")
    alias = "tf" if backend.name == "tensorflow" else backend.name
    return found | {alias: importlib.import_module(backend.name)}


def test_many_views_of_labelled_images_are_told_the_right_line(backend: Any) -> None:
    """Of (N, V, d), rows and labels in one order: `repeat` and `tile` aren't to be mixed up."""
    z = np.random.default_rng(0).standard_normal((4, 3, 5))
    labels = np.array([0, 1, 0, 2])
    given, names = [backend.from_numpy(x) for x in (z, labels)], names_of(backend)
    told = refused(backend.module.sup_con, *given)
    assert "Of 3 views of each image, (N, 3, d), pass the rows image by image and each" in told
    line = told[told.index("sup_con(") : -1]
    found = backend.value(lambda z, labels: eval(line, names | {"z": z, "labels": labels}), *given)
    expected = reference.sup_con(z.reshape(12, 5), np.repeat(labels, 3))
    assert_within(relative_error(found, expected), 1e-12, "loss")


@pytest.mark.parametrize("views", [1, 2])
def test_stacked_views_are_told_the_right_line(backend: Any, views: int) -> None:
    """Of (V, N, d) and of (N, V, d)."""
    z = np.random.default_rng(0).standard_normal((4, 3, 5))
    told = refused(backend.module.nt_xent, *[backend.from_numpy(z)] * views)
    line = told[told.index("and nt_xent(") + 4 : told.index(" for (N, V, d)")]
    assert "nt_xent(*z) for stacked views, (V, N, d)" in told
    names = names_of(backend)
    found = backend.value(lambda z: eval(line, names | {"z": z}), backend.from_numpy(z))
    assert_within(relative_error(found, reference.nt_xent(*z.swapaxes(0, 1))), 1e-12, "loss")


@pytest.mark.parametrize("loss", ["nt_xent", "sup_con", "info_nce"])
def test_feature_maps_are_told_the_right_line(backend: Any, loss: str) -> None:
    maps = backend.from_numpy(np.zeros((4, 3, 2, 2)))
    told = refused(getattr(backend.module, loss), maps, maps)
    line = told[told.index("Of feature maps, (N, C, H, W), pass ") + 36 : -1]
    assert eval(line, names_of(backend) | {"z": maps}).shape == (4, 12)


@pytest.mark.only("jax")
def test_sparse_arrays_of_jax_are_told_how_to_be_rows() -> None:
    from jax.experimental.sparse import BCOO

    from ntxent.jax import nt_xent

    z = BCOO.fromdense(np.eye(3))
    assert "a plain jax.Array; got a sparse one. Pass its todense()." in refused(nt_xent, z, z)


@pytest.mark.only("tensorflow")
def test_sparse_and_ragged_tensors_are_told_how_to_be_rows() -> None:
    import tensorflow as tf

    from ntxent.tensorflow import nt_xent

    sparse, ragged = tf.sparse.eye(3), tf.ragged.constant([[1.0, 2.0], [3.0, 4.0]])
    assert "got a tf.SparseTensor. Pass tf.sparse.to_dense of" in refused(nt_xent, sparse, sparse)
    assert "got a tf.RaggedTensor. Pass its to_tensor(), if" in refused(nt_xent, ragged, ragged)


@pytest.mark.only("torch")
def test_sparse_and_distributed_tensors_are_told_how_to_be_rows() -> None:
    import torch

    from ntxent.torch import nt_xent

    z = torch.tensor(ROWS)
    told = refused(nt_xent, z, z.to_sparse())
    assert told == (
        "view 2 must be a plain torch.Tensor; got one of layout torch.sparse_coo. "
        "Pass its to_dense()."
    )
    for layout in (torch.jagged, torch.strided):
        with warnings.catch_warnings():  # that nested tensors may still change
            warnings.simplefilter("ignore")
            nested = torch.nested.nested_tensor([z, z[:3]], layout=layout)
        words = "got a nested one. Pass its rows as one plain tensor: torch.cat(z.unbind())."
        assert words in refused(nt_xent, nested, nested)
        assert words in refused(nt_xent, z, nested)


@pytest.mark.only("torch")
def test_distributed_tensors_are_told_how_to_be_rows() -> None:
    """And their shards, passed so, are one batch."""
    import across_torch
    from benchmarks.world import world

    told, *losses, whole = world(1, across_torch.distributed_tensor)[0]
    assert told == (
        "TypeError: view 1 must be a plain torch.Tensor; got a DTensor, which is spread over "
        "processes. Pass the shard that is here, its to_local(), and group=True (or the group of "
        "its mesh) to make one batch of all."
    )
    for loss in losses:
        assert_within(relative_error(loss, whole), 1e-6, "loss")
