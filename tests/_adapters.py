"""One small object per backend: the same test bodies run on all. Frameworks are imported inside."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow tells its build at every start

import numpy as np

Array = np.ndarray[Any, Any]


class NumpyAdapter:
    name = "numpy"
    dtypes = ("float64", "float32", "float16")
    array_name = "numpy.ndarray"

    def __init__(self, device: str) -> None:
        import ntxent.numpy as module

        self.module, self.device = module, device
        from ntxent.numpy._operations.backend import OPS
        from ntxent.numpy._pairs import tiled

        self.ops, self.tiled = OPS, tiled

    @staticmethod
    def installed() -> bool:
        return True

    @staticmethod
    def has_device(device: str) -> bool:
        return device == "cpu"

    def from_numpy(self, array: Any, dtype: str | None = None) -> Any:
        return np.array(array, dtype=dtype)

    def to_numpy(self, array: Any) -> Array:
        return np.asarray(array)

    def value(self, fn: Callable[..., Any], *arrays: Any, **kwargs: Any) -> Array:
        return np.asarray(fn(*arrays, **kwargs))

    def value_and_grad(
        self, fn: Callable[..., Any], arrays: Sequence[Any], key: Any = None
    ) -> tuple[Array, list[Array]]:
        value, grads = self.module.value_and_grad(fn)(*arrays)
        return np.asarray(value), list(grads)

    def total(self, rows: Any, weights: Any) -> Any:
        """The weighted sum of a vector of losses, which isn't of the four operations."""
        weighted = rows * weights
        if isinstance(weighted, np.ndarray):
            return weighted.sum()
        shape, value = weighted.shape, weighted.value.sum()
        return weighted.tape.record([weighted], value, lambda g: [np.full(shape, g)])


class TorchAdapter:
    name = "torch"
    dtypes = ("float64", "float32", "float16", "bfloat16")
    array_name = "torch.Tensor"

    def __init__(self, device: str) -> None:
        import torch

        import ntxent.torch as module
        from ntxent.torch._operations.backend import OPS
        from ntxent.torch._pairs import tiled

        self.torch, self.module, self.ops, self.tiled = torch, module, OPS, tiled
        self.device = "cuda" if device == "gpu" else "cpu"

    @staticmethod
    def installed() -> bool:
        return find_spec("torch") is not None

    @staticmethod
    def has_device(device: str) -> bool:
        import torch

        return device == "cpu" or torch.cuda.is_available()

    def from_numpy(self, array: Any, dtype: str | None = None) -> Any:
        tensor = self.torch.tensor(np.asarray(array), device=self.device)
        return tensor if dtype is None else tensor.to(getattr(self.torch, dtype))

    def to_numpy(self, array: Any) -> Array:
        array = array.detach().cpu()
        found: Array = (array.float() if array.dtype == self.torch.bfloat16 else array).numpy()
        return found

    def value(self, fn: Callable[..., Any], *arrays: Any, **kwargs: Any) -> Array:
        found = fn(*arrays, **kwargs)
        return np.asarray(found.detach().cpu().numpy())

    def value_and_grad(
        self, fn: Callable[..., Any], arrays: Sequence[Any], key: Any = None
    ) -> tuple[Array, list[Array]]:
        leaves = [array.detach().clone().requires_grad_() for array in arrays]
        value = fn(*leaves)
        value.backward()
        for leaf in leaves:
            assert leaf.grad.dtype == leaf.dtype
        grads = [self.to_numpy(leaf.grad) for leaf in leaves]
        return np.asarray(value.detach().cpu().numpy()), grads

    def total(self, rows: Any, weights: Any) -> Any:
        return (rows * weights).sum()


# Nearly all of the time of JAX's tests goes into compiling what is run once. So XLA is told to be
# quick, where 1.4 s become 0.4 (dense), 2.1 s 0.5 (a tile) and 4 s 1.1 (several): a fourth of each.
# What it makes of the losses with all of its passes the hostile grid compares, and all tests with
# `--all`.
XLA_IN_HASTE = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)
XLA_AS_USERS_HAVE_IT = {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
    "xla_cpu_use_fusion_emitters": True,
}


class JaxAdapter:
    """float64 is switched on for float64 arrays alone: float32 is tested as most users run it."""

    name = "jax"
    dtypes = ("float64", "float32", "float16", "bfloat16")
    array_name = "jax.Array"

    def __init__(self, device: str) -> None:
        import jax

        import ntxent.jax as module
        from ntxent.jax._operations.backend import OPS
        from ntxent.jax._pairs import tiled

        self.jax, self.module, self.ops, self.tiled = jax, module, OPS, tiled
        self.device = jax.devices(device)[0]
        self.made: dict[Any, Any] = {}  # by the keys of grids

    @staticmethod
    def installed() -> bool:
        return find_spec("jax") is not None

    @staticmethod
    def has_device(device: str) -> bool:
        import jax

        return any(found.platform == device for found in jax.devices())

    def wide(self, *arrays: Any) -> Any:
        """The context for these arrays."""
        return self.jax.enable_x64(any(str(a.dtype) in WIDE for a in arrays if hasattr(a, "dtype")))

    def from_numpy(self, array: Any, dtype: str | None = None) -> Any:
        array = np.asarray(array)
        dtype = dtype or str(array.dtype)
        with self.jax.enable_x64(dtype in WIDE):
            return self.jax.device_put(self.jax.numpy.asarray(array, dtype), self.device)

    def to_numpy(self, array: Any) -> Array:
        return np.asarray(array, "float32" if array.dtype == "bfloat16" else array.dtype)

    def value(self, fn: Callable[..., Any], *arrays: Any, **kwargs: Any) -> Array:
        with self.wide(*arrays):
            return np.asarray(fn(*arrays, **kwargs))

    def value_and_grad(
        self, fn: Callable[..., Any], arrays: Sequence[Any], key: Any = None
    ) -> tuple[Array, list[Array]]:
        """Of a grid's case, which has a key, by the first function of the key, compiled whole.

        So it is compiled once for all cases of a shape; outside of `jit` most of a grid's time goes
        into compiling each small operation of a new shape. Other tests do without. The hostile
        grid's, whose key begins with its name, has all of XLA's passes.
        """
        step = self.jax.value_and_grad(fn, range(len(arrays)))
        if key is not None:
            options = XLA_AS_USERS_HAVE_IT if key[0] == "hostile grid" else None
            key = key, len(arrays), self.tiled.TILE
            step = self.made.setdefault(key, self.jax.jit(step, compiler_options=options))
        with self.wide(*arrays):
            value, grads = step(*arrays)
        for array, grad in zip(arrays, grads, strict=True):
            assert grad.dtype == array.dtype
        return np.asarray(value), [self.to_numpy(grad) for grad in grads]

    def total(self, rows: Any, weights: Any) -> Any:
        return (rows * weights).sum()


class TensorflowAdapter:
    name = "tensorflow"
    dtypes = ("float64", "float32", "float16", "bfloat16")
    array_name = "tensorflow.Tensor"

    def __init__(self, device: str) -> None:
        import tensorflow as tf

        import ntxent.tensorflow as module
        from ntxent.tensorflow._operations.backend import OPS
        from ntxent.tensorflow._pairs import tiled

        self.tf, self.module, self.ops, self.tiled = tf, module, OPS, tiled
        self.device = f"/{device.upper()}:0"

    @staticmethod
    def installed() -> bool:
        return find_spec("tensorflow") is not None

    @staticmethod
    def has_device(device: str) -> bool:
        import tensorflow as tf

        return bool(tf.config.list_physical_devices(device.upper()))

    def from_numpy(self, array: Any, dtype: str | None = None) -> Any:
        with self.tf.device(self.device):
            tensor = self.tf.constant(np.asarray(array))
            return tensor if dtype is None else self.tf.cast(tensor, dtype)

    def to_numpy(self, array: Any) -> Array:
        tf = self.tf
        return np.asarray(tf.cast(array, tf.float32) if array.dtype == tf.bfloat16 else array)

    def value(self, fn: Callable[..., Any], *arrays: Any, **kwargs: Any) -> Array:
        return np.asarray(fn(*arrays, **kwargs))

    def value_and_grad(
        self, fn: Callable[..., Any], arrays: Sequence[Any], key: Any = None
    ) -> tuple[Array, list[Array]]:
        with self.tf.GradientTape() as tape:
            tape.watch(arrays)
            value = fn(*arrays)
        grads = tape.gradient(value, arrays)
        for array, grad in zip(arrays, grads, strict=True):
            assert grad.dtype == array.dtype
        return np.asarray(value), [self.to_numpy(grad) for grad in grads]

    def total(self, rows: Any, weights: Any) -> Any:
        return self.tf.reduce_sum(rows * weights)


WIDE = {"float64", "int64", "uint64", "complex128"}
ADAPTERS = {
    adapter.name: adapter for adapter in (NumpyAdapter, TorchAdapter, JaxAdapter, TensorflowAdapter)
}


def cut_into(monkeypatch: Any, tiled: Any, size: int) -> None:
    """Tiles of this size, and a tile that is all of twice that, so that small batches have many."""
    monkeypatch.setattr(tiled, "TILE", size)
    if hasattr(tiled, "ALONE"):
        monkeypatch.setattr(tiled, "ALONE", 2 * size)


def call(backend: Any, name: str, arrays: Any, options: dict[str, Any], **more: Any) -> Any:
    """The function, with its integers as the backend's arrays."""
    given = {k: backend.from_numpy(v) if k in {"labels", "ids"} else v for k, v in options.items()}
    positional = [given.pop("labels")] if "labels" in given else []
    return getattr(backend.module, name)(*arrays, *positional, **given, **more)
