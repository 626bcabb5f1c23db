"""What is refused, and with which words: the same in every backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

Z = np.linspace(-1, 1, 12).reshape(4, 3)
ARRAY = "{array}"

FAILURES: dict[str, tuple[Callable[..., Any], type[Exception], str]] = {
    "one view": (lambda f, a: f(a(Z)), ValueError, "at least two views.*got 1.*nt_xent"),
    "no view": (lambda f, a: f(), ValueError, "at least two views.*got 0"),
    "1-d": (lambda f, a: f(a(Z[0]), a(Z[0])), ValueError, r"view 1 must be 2-d.*\(3,\).*Reshape"),
    "3-d": (lambda f, a: f(a(Z[None]), a(Z[None])), ValueError, r"2-d.*\(1, 4, 3\)"),
    "shapes": (
        lambda f, a: f(a(Z), a(Z[:2])),
        ValueError,
        r"one shape.*\(4, 3\).*\(2, 3\).*view 2",
    ),
    "N = 0": (lambda f, a: f(a(Z[:0]), a(Z[:0])), ValueError, r"at least one row.*\(0, 3\)"),
    "d = 0": (lambda f, a: f(a(Z[:, :0]), a(Z[:, :0])), ValueError, r"one column.*\(4, 0\)"),
    "integers": (
        lambda f, a: f(a(Z, "int64"), a(Z, "int64")),
        TypeError,
        "floating.*float32.*int64",
    ),
    "complex": (lambda f, a: f(a(Z + 0j), a(Z + 0j)), TypeError, "floating.*complex128"),
    "dtypes": (lambda f, a: f(a(Z), a(Z, "float32")), TypeError, "one dtype.*float64.*float32"),
    "a list": (lambda f, a: f(Z.tolist(), Z.tolist()), TypeError, "view 1 must be a {array}.*list"),
    "a second list": (
        lambda f, a: f(a(Z), Z.tolist()),
        TypeError,
        "view 2 must be a {array}.*list",
    ),
    "tau = 0": (
        lambda f, a: f(a(Z), a(Z), temperature=0),
        ValueError,
        "positive and finite; got 0",
    ),
    "tau < 0": (lambda f, a: f(a(Z), a(Z), temperature=-0.1), ValueError, "positive.*-0.1"),
    "tau nan": (lambda f, a: f(a(Z), a(Z), temperature=float("nan")), ValueError, "positive.*nan"),
    "tau inf": (
        lambda f, a: f(a(Z), a(Z), temperature=float("inf")),
        ValueError,
        "finite; got inf",
    ),
    "tau string": (
        lambda f, a: f(a(Z), a(Z), temperature="0.1"),
        TypeError,
        "a number or a {array} of one element; got str",
    ),
    "tau bool": (lambda f, a: f(a(Z), a(Z), temperature=True), TypeError, "a number.*bool True"),
    "tau 1-d": (
        lambda f, a: f(a(Z), a(Z), temperature=a(Z[0])),
        ValueError,
        r"of shape \(\) or \(1,\); got shape \(3,\)",
    ),
    "tau int array": (
        lambda f, a: f(a(Z), a(Z), temperature=a(np.array(1))),
        TypeError,
        "temperature must be of a real floating dtype.*int64",
    ),
    "denominator": (
        lambda f, a: f(a(Z), a(Z), denominator="none"),
        ValueError,
        'denominator must be one of "all", "one_positive", "negatives"; got .none.',
    ),
    "reduction": (
        lambda f, a: f(a(Z), a(Z), reduction=None),
        ValueError,
        '"mean", "sum", "none"; got None',
    ),
    "implementation": (
        lambda f, a: f(a(Z), a(Z), implementation="triton!"),
        ValueError,
        'implementation must be one of "dense", "tiled".*triton!',
    ),
    "float ids": (
        lambda f, a: f(a(Z), a(Z), ids=a(Z[:, 0])),
        TypeError,
        "ids must be integers.*float64",
    ),
    "bool ids": (
        lambda f, a: f(a(Z), a(Z), ids=a(Z[:, 0] > 0)),
        TypeError,
        "ids must be integers.*bool",
    ),
    "ids by row": (
        lambda f, a: f(a(Z), a(Z), ids=a(np.arange(8))),
        ValueError,
        r"shape \(4,\), one for each image \(not for each view\); got \(8,\)",
    ),
    "ids list": (
        lambda f, a: f(a(Z), a(Z), ids=[0, 1, 2, 3]),
        TypeError,
        "ids must be a {array}.*list",
    ),
    "no negatives, N = 1": (
        lambda f, a: f(a(Z[:1]), a(Z[:1]), denominator="negatives"),
        ValueError,
        "at least one negative.*N = 1",
    ),
    "no negatives, ids": (
        lambda f, a: f(a(Z), a(Z), denominator="negatives", ids=a(np.zeros(4, int))),
        ValueError,
        "at least one negative.*all equal",
    ),
}


READ = {"no negatives, ids"}  # refused for values of ids
ROWS = np.array([0, 0, 1, 1])
OTHERS: dict[str, tuple[str, Callable[..., Any], type[Exception], str]] = {
    "labels, shape": (
        "sup_con",
        lambda f, a: f(a(Z), a(ROWS[:, None])),
        ValueError,
        r"labels must have shape \(4,\), one for each row of z; got \(4, 1\)",
    ),
    "float labels": (
        "sup_con",
        lambda f, a: f(a(Z), a(ROWS, "float32")),
        TypeError,
        "labels must be integers.*float32",
    ),
    "labels list": (
        "sup_con",
        lambda f, a: f(a(Z), [0, 0, 1, 1]),
        TypeError,
        "labels must be a {array}.*list",
    ),
    "z, shape": (
        "sup_con",
        lambda f, a: f(a(Z[None]), a(ROWS)),
        ValueError,
        r"z must be 2-d.*\(1, 4, 3\)",
    ),
    "sup_con, tau": (
        "sup_con",
        lambda f, a: f(a(Z), a(ROWS), temperature=0.0),
        ValueError,
        "positive and finite; got 0.0",
    ),
    "sup_con, reduction": (
        "sup_con",
        lambda f, a: f(a(Z), a(ROWS), reduction="average"),
        ValueError,
        "reduction must be one of",
    ),
    "pairs": (
        "info_nce",
        lambda f, a: f(a(Z), a(Z[:2])),
        ValueError,
        r"query and key must have one shape.*pair i.*\(4, 3\) for query.*\(2, 3\) for key",
    ),
    "key dtype": (
        "info_nce",
        lambda f, a: f(a(Z), a(Z, "float32")),
        TypeError,
        "query and key must have one dtype.*float64 for query.*float32 for key",
    ),
    "negatives, d": (
        "info_nce",
        lambda f, a: f(a(Z), a(Z), a(Z[:, :2])),
        ValueError,
        r"negatives must have shape \(K, 3\).*\(4, M, 3\).*got \(4, 2\)",
    ),
    "negatives, N": (
        "info_nce",
        lambda f, a: f(a(Z), a(Z), a(Z[None])),
        ValueError,
        r"negatives must have shape.*got \(1, 4, 3\)",
    ),
    "no negatives": (
        "info_nce",
        lambda f, a: f(a(Z), a(Z), a(Z[:0])),
        ValueError,
        r"at least 1; got \(0, 3\).*None",
    ),
    "negatives, dtype": (
        "info_nce",
        lambda f, a: f(a(Z), a(Z), a(Z, "float32")),
        TypeError,
        "one dtype.*float32 for negatives",
    ),
    "negatives list": (
        "info_nce",
        lambda f, a: f(a(Z), a(Z), Z.tolist()),
        TypeError,
        "negatives must be a {array}.*list",
    ),
    "ids of pairs alone": (
        "info_nce",
        lambda f, a: f(a(Z), a(Z), a(Z), ids=a(ROWS)),
        ValueError,
        r"ids must have shape \(8,\), N \+ K: one for each pair, then.*got \(4,\)",
    ),
    "ids of too many": (
        "info_nce",
        lambda f, a: f(a(Z), a(Z), ids=a(np.arange(8))),
        ValueError,
        r"ids must have shape \(4,\), one for each pair; got \(8,\)",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_bad_input_of_the_other_losses(backend: Any, name: str) -> None:
    loss, *rest = OTHERS[name]
    assert_refused(backend, getattr(backend.module, loss), name, *rest)


def assert_refused(
    backend: Any, loss: Any, name: str, call: Any, error: type[Exception], words: str
) -> None:
    """With words; what would have to be read off a GPU makes the loss NaN."""
    if name in READ and backend.device == "cuda":
        assert np.isnan(backend.to_numpy(call(loss, backend.from_numpy)))
        return
    with pytest.raises(error, match=words.replace(ARRAY, backend.array_name)):
        call(loss, backend.from_numpy)


@pytest.mark.parametrize("loss", ["sup_con", "info_nce"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_data_shows_in_the_other_losses(
    backend: Any, implementation: str, loss: str, bad: float
) -> None:
    z = Z.copy()
    z[1, 1] = bad
    given = [z, ROWS] if loss == "sup_con" else [Z, z]
    value = backend.value(
        lambda *arrays: getattr(backend.module, loss)(*arrays, implementation=implementation),
        *map(backend.from_numpy, given),
    )
    assert not np.isfinite(value)


@pytest.mark.parametrize("name", FAILURES)
def test_bad_input_is_refused_with_words(backend: Any, name: str) -> None:
    assert_refused(backend, backend.module.nt_xent, name, *FAILURES[name])


def test_the_array_of_another_backend_is_refused(backend: Any) -> None:
    class Tensor:
        shape, dtype = (4, 3), "float32"

    with pytest.raises(TypeError, match=rf"a {backend.array_name}.*Tensor.*import the loss"):
        backend.module.nt_xent(Tensor(), Tensor())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_data_shows_in_the_loss(backend: Any, implementation: str, bad: float) -> None:
    z = Z.copy()
    z[1, 1] = bad
    loss = backend.value(
        backend.module.nt_xent,
        backend.from_numpy(z),
        backend.from_numpy(Z),
        implementation=implementation,
    )
    assert not np.isfinite(loss)


@pytest.mark.only("numpy")
def test_a_masked_array_is_refused() -> None:
    from ntxent.numpy import nt_xent

    masked = np.ma.masked_array(Z, mask=Z > 0)
    with pytest.raises(TypeError, match=r"numpy\.ma.*MaskedArray"):
        nt_xent(masked, masked)


@pytest.mark.only("numpy")
def test_a_bad_temperature_array_is_refused() -> None:
    from ntxent.numpy import nt_xent

    with pytest.raises(ValueError, match="positive and finite"):
        nt_xent(Z, Z, temperature=np.array(-0.5))


@pytest.mark.only("torch")
@pytest.mark.parametrize("value", [0.0, -0.5, float("inf"), float("nan")])
def test_a_bad_temperature_tensor_gives_nan(value: float) -> None:
    """Its value isn't read, which would wait for a device; NaN is no wrong number."""
    import torch

    from ntxent.torch import nt_xent

    z = torch.tensor(Z)
    for implementation in ("dense", "tiled"):
        assert nt_xent(z, z, temperature=torch.tensor(value), implementation=implementation).isnan()
