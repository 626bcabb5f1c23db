"""NT-Xent, SimCLR's contrastive loss, in PyTorch, JAX, TensorFlow and NumPy: exact, small, fast.

Import the loss from the backend of your arrays, `from ntxent.torch import nt_xent`; this module
loads no framework.
"""

from __future__ import annotations

from importlib.util import find_spec

__all__ = ["__version__", "available_backends"]

__version__ = "0.1.0"

_BACKENDS = ("numpy", "torch", "jax", "tensorflow")  # each named as its framework's module


def available_backends() -> tuple[str, ...]:
    """The backends whose framework is installed.

    Returns
    -------
    tuple of str
        Some of "numpy", "torch", "jax" and "tensorflow". Nothing is imported to find out.

    Examples
    --------
    >>> import ntxent
    >>> "numpy" in ntxent.available_backends()
    True
    """
    return tuple(name for name in _BACKENDS if find_spec(name) is not None)
