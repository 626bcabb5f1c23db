"""The largest array that PyTorch or JAX makes, for tests of memory; each is imported inside."""

from __future__ import annotations

from typing import Any

import numpy as np


def largest_tensor() -> Any:
    """A context whose `size` is the number of elements of the largest tensor made within."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            for x in result if isinstance(result, tuple | list) else [result]:
                if isinstance(x, torch.Tensor):
                    self.size = max(self.size, x.numel())
            return result

    return Largest()


def largest_array(jaxpr: Any) -> int:
    """Elements of the largest array that any equation makes, in loops and branches too."""
    import jax

    sizes = [np.prod(x.aval.shape, dtype=int) for e in jaxpr.eqns for x in e.outvars]
    inner = [getattr(x, "jaxpr", x) for e in jaxpr.eqns for x in jax.tree.leaves(e.params)]
    return max([0, *sizes, *(largest_array(x) for x in inner if hasattr(x, "eqns"))])
