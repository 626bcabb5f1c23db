"""Every loss with each of its options, for what JAX makes of them; NumPy says the truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

# loss(module, first, second, third, integers, temperature, **options), of every backend's module
CASES: dict[str, Callable[..., Any]] = {
    "nt_xent": lambda m, a, b, c, i, t, **o: m.nt_xent(a, b, temperature=t, **o),
    "three views": lambda m, a, b, c, i, t, **o: m.nt_xent(a, b, c, temperature=t, **o),
    "one positive": lambda m, a, b, c, i, t, **o: m.nt_xent(
        a, b, c, ids=i, temperature=t, denominator="one_positive", **o
    ),
    "negatives alone": lambda m, a, b, c, i, t, **o: m.nt_xent(
        a, b, c, ids=i, temperature=t, denominator="negatives", normalize=False, **o
    ),
    "sup_con": lambda m, a, b, c, i, t, **o: m.sup_con(a, i, temperature=t, **o),
    "info_nce": lambda m, a, b, c, i, t, **o: m.info_nce(a, b, temperature=t, **o),
    "both directions": lambda m, a, b, c, i, t, **o: m.info_nce(
        a, b, ids=i, symmetric=True, temperature=t, **o
    ),
    "a queue": lambda m, a, b, c, i, t, **o: m.info_nce(a, b, c, temperature=t, **o),
    "own negatives": lambda m, a, b, c, i, t, **o: m.info_nce(
        a, b, c if len(c.shape) == 3 else c[:, None], symmetric=True, temperature=t, **o
    ),
}
# Code is generated once and run once: these are tests of what is computed. The digits that code has
# with all of LLVM's optimisations are held against the table by the hostile grid.
UNOPTIMISED = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
PLACES = (0, 1, 2, 4)  # what has a gradient: all but the integers
IDS = np.array([0, 1, 2, 0, 1, 2, 2, 3])
TAU = 0.2


def jit(fn: Any) -> Any:
    """`jax.jit`, unoptimised."""
    import jax

    return jax.jit(fn, compiler_options=UNOPTIMISED)


def inputs_of(count: int = 6, dtype: Any = np.float32) -> list[Any]:
    """Three arrays of rows, integers and the temperature, NumPy's."""
    views = np.random.default_rng(count).standard_normal((3, count, 4)).astype(dtype)
    return [*views, IDS[:count], np.array(TAU, dtype)]


def loss_of(case: str, implementation: str | None = None, **options: Any) -> Any:
    """JAX's, a function of `inputs_of`."""
    import ntxent.jax

    return lambda *x: CASES[case](ntxent.jax, *x, implementation=implementation, **options)


def truth(case: str, inputs: Any) -> Any:
    """Value and gradients in float64, by NumPy's closed forms."""
    import ntxent.numpy

    *views, ids, tau = map(np.asarray, inputs)
    wide = [np.asarray(x, np.float64) for x in (*views, tau)]
    loss = lambda a, b, c, t: CASES[case](ntxent.numpy, a, b, c, ids, t)  # noqa: E731
    if case != "own negatives":
        return ntxent.numpy.value_and_grad(loss)(*wide)
    wide[2] = wide[2][:, None]
    value, grads = ntxent.numpy.value_and_grad(loss)(*wide)
    return value, (*grads[:2], grads[2][:, 0], grads[3])


def assert_right(found: Any, case: str, inputs: Any) -> None:
    """Value and gradients are the truth."""
    (value, grads), (expected, truths) = found, truth(case, inputs)
    np.testing.assert_allclose(value, expected, rtol=3e-6)
    for grad, want in zip(grads, truths, strict=True):
        size = np.abs(want).max() if want is not None else 0.0
        np.testing.assert_allclose(grad, 0 if want is None else want, atol=1e-5 * size)
