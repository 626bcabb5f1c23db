"""NT-Xent, SimCLR's contrastive loss, in PyTorch, JAX, TensorFlow and NumPy: exact, small, fast.

Import the loss from the backend of your arrays, `from ntxent.torch import nt_xent`; this module
loads no framework. `ntxent.diagnostics` and `ntxent.plot` take arrays of all backends.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # else imported when they are asked for: see __getattr__
    from ntxent._diagnostics import Diagnostics, diagnostics

__all__ = ["Diagnostics", "__version__", "available_backends", "diagnostics"]

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


def __dir__() -> list[str]:
    """With what `__getattr__` can serve on this machine."""
    return sorted({*globals(), *__all__, *(["plot"] if find_spec("matplotlib") else [])})


def __getattr__(name: str) -> Any:
    """What needs NumPy, or matplotlib, is imported when it is first asked for."""
    if name in {"Diagnostics", "diagnostics"}:
        return getattr(import_module("ntxent._diagnostics"), name)
    if name == "plot":
        return import_module("ntxent.plot")
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
