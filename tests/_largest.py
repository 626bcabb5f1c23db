"""The largest tensor that PyTorch makes, for tests of memory; torch is imported inside."""

from __future__ import annotations

from typing import Any


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
