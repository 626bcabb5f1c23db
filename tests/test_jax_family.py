"""What JAX's users expect of `sup_con` and `info_nce` beyond the shared suite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from _largest import largest_array
from _small_family import LABELS, assert_near, rows
from ntxent import reference

pytestmark = pytest.mark.only("jax")


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


def test_jax_takes_a_long_row_off_the_sum_of_its_class() -> None:
    """Without normalisation a class may have rows of very different length."""
    import jax.numpy as jnp

    from ntxent.jax import sup_con

    z = np.array([[3e4, 0], [1e-3, 0.3], [1.3e-3, 2.0], [0, 1e-3]], "float32")
    labels = np.array([0, 0, 0, 1])
    expected = reference.sup_con(z, labels, temperature=10.0, normalize=False)
    got = sup_con(jnp.asarray(z), jnp.asarray(labels), temperature=10.0, normalize=False)
    assert_near(got, expected, 1e-5, "loss")


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


@pytest.mark.parametrize("name", ["sup_con", "info_nce"])
def test_no_jax_operation_makes_a_matrix(name: str, monkeypatch: Any) -> None:
    import jax

    import ntxent.jax as module

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

        sizes[implementation] = largest_array(jax.make_jaxpr(jax.value_and_grad(step))(z).jaxpr)
    assert sizes["dense"] == 400**2
    assert sizes["tiled"] <= 64 * 64
