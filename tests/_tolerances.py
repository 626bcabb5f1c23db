"""The one table of tolerances (docs/numerics.md explains it), and the comparisons that use it."""

from __future__ import annotations

from typing import Any

import numpy as np

# loss: relative to the loss; gradient: relative to the largest term; both times max(1, 0.1 / tau),
# as a similarity's rounding of one epsilon becomes epsilon / tau in the exponent.
TOLERANCES = {
    "float64": {"loss": 1e-12, "row": 3e-12, "gradient": 1e-10},
    "float32": {"loss": 1e-6, "row": 3e-6, "gradient": 1e-5},
    # of products on matrix units of capability 9.0, which cut sums off and don't round them
    "float32, matrix units": {"loss": 2e-6, "row": 3e-6, "gradient": 1e-5},
}
# half-precision inputs: error <= 2 * (error of the dense form) + this; the gradient's also + the
# dtype's epsilon, as it is rounded to that dtype.
HALF_LOSS = 1e-5
EPSILON = {"float16": 2.0**-10, "bfloat16": 2.0**-7}


def arithmetic(backend: Any, dtype: str, implementation: str) -> str:
    """Whose line of the table holds."""
    if (dtype, implementation, backend.device) != ("float32", "triton", "cuda"):
        return dtype
    from ntxent.torch._kernels.block_lists import generation

    newer = generation(backend.torch.cuda.get_device_capability()) == (9, 0)
    return "float32, matrix units" if newer else dtype


def tolerance(dtype: str, quantity: str, temperature: float) -> float:
    return TOLERANCES[dtype][quantity] * max(1.0, 0.1 / temperature)


def relative_error(got: Any, expected: Any, scale: Any = 0.0, floor: Any = None) -> float:
    """The largest |got - expected| over the larger of |expected| and a scale; inf for a NaN.

    An error below the floor, the smallest normal number of the dtype of `got`, is none: what is
    smaller has fewer digits in it, or is taken for zero.
    """
    if floor is None:
        floor = np.finfo(got.dtype if hasattr(got, "dtype") else float).tiny
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert got.shape == expected.shape, f"shape {got.shape}, expected {expected.shape}"
    error = np.maximum(np.abs(got - expected) - floor, 0)
    size = np.maximum(np.maximum(np.abs(expected), scale), floor)
    ratio = error / size
    return float(np.where(np.isnan(ratio), np.inf, ratio).max())


def gradient_error(
    got: list[Any],
    expected: list[Any],
    lengths: list[Any],
    losses: Any,
    temperature: float,
    dtype: str = "float64",
) -> float:
    """The largest error of the views' gradients, each row times its length.

    Relative to the larger of the largest entry and the largest (1 - exp(-l_i)) / (n tau): the size
    of the terms before they cancel. A row's gradient is proportional to 1 / |x_i|, so with rows of
    very different length an error that isn't measured so would only look at the shortest ones.
    """
    losses = np.asarray(losses, np.float64)
    # A term below tiny / eps may have no digit left, as BLAS takes subnormal numbers for zero.
    tiny, eps = float(np.finfo(dtype).tiny), float(np.finfo(dtype).eps)
    weight = max(losses.size * tiny / eps, float(np.max(-np.expm1(-np.abs(losses)))))
    scale = weight / (losses.size * temperature)
    got, expected = (
        [np.asarray(g, np.float64) * length for g, length in zip(grads, lengths, strict=True)]
        for grads in (got, expected)
    )
    scale = max(scale, *(float(np.abs(g).max()) for g in expected))
    return max(
        relative_error(g, e, scale, np.maximum(tiny * length, np.finfo(float).tiny))
        for g, e, length in zip(got, expected, lengths, strict=True)
    )


def assert_within(error: float, bound: float, what: str) -> None:
    """Fail unless error <= bound, which a NaN is not."""
    assert error <= bound, (
        f"{what}: error {error:.3g} is {error / bound:.3g} times the bound {bound:.3g}"
    )
