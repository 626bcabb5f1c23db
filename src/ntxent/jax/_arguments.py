"""What comes into a loss: arrays of JAX, and of NumPy what `jax.numpy` would take."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, dtypes

FLOATS = frozenset(map(jnp.dtype, ("float64", "float32", "bfloat16", "float16")))
INTEGERS = frozenset(
    jnp.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)
)


def is_numpy(value: Any) -> bool:
    """An array of NumPy, but none with a mask, which would be lost without a word."""
    return isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray)


def taken(name: str, value: Any) -> Any:
    """The value as JAX's array; what isn't any, and has no place here, as it came."""
    if value is None:
        return None
    if isinstance(value, Array):
        check_sharding(name, value)
        return value
    if is_numpy(value):
        return converted(value)
    return jnp.asarray(value) if hasattr(value, "__jax_array__") else value


def taken_temperature(value: Any) -> Any:
    """The same, but of NumPy's numbers, which are known, the number."""
    if isinstance(value, np.generic) or (is_numpy(value) and value.ndim == 0):
        return value.item()
    return taken("temperature", value)


def converted(array: Any) -> Any:
    """As `jax.numpy` converts it: float64 and int64 stay so with `jax_enable_x64` alone.

    A copy: `asarray` may share NumPy's memory, which can be written to while JAX computes.
    """
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    if native.dtype in INTEGERS:
        return jnp.array(narrowed(native))
    return jnp.array(native) if native.dtype in FLOATS else native


def narrowed(ids: Any) -> Any:
    """The integers in the width that JAX has, or numbered anew: they are compared for equality."""
    narrow = ids.astype(dtypes.canonicalize_dtype(ids.dtype), copy=False)
    if (narrow == ids).all():
        return narrow
    return np.unique(ids, return_inverse=True)[1].reshape(ids.shape).astype(np.int32)


def check_sharding(name: str, array: Any) -> None:
    """Not sharded over Explicit axes of a mesh, where JAX asks how each product is to be."""
    spec = array.aval.sharding.spec
    if any(axes is not None for axes in spec):
        msg = (
            f"{name} is sharded over Explicit axes of a mesh, as {spec}, but every row of a batch "
            "meets all others. Divide the work with jax.shard_map around the loss and axis_name=, "
            "or give every device all rows: "
            "jax.sharding.reshard(z, NamedSharding(mesh, PartitionSpec()))."
        )
        raise ValueError(msg)


def check_known_sizes(arrays: Any, implementation: str | None, exchange: str | None) -> str | None:
    """The implementation as asked for, or "dense" where `jax.export` leaves the rows open."""
    if all(isinstance(array.shape[0], int) for array in arrays):
        return implementation
    if implementation == "tiled" or exchange == "ring":
        what = 'implementation="tiled"' if implementation == "tiled" else 'exchange="ring"'
        shapes = ", ".join(str(array.shape) for array in arrays)
        msg = (
            f"{what} needs to know how many rows there are when it is traced, but got symbolic "
            f'shapes: {shapes}. Use implementation="dense", or export each size by itself.'
        )
        raise ValueError(msg)
    return "dense"
