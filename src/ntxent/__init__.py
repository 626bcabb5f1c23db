"""NT-Xent, the contrastive loss of SimCLR, in PyTorch and NumPy: exact, small and fast.

Import the loss from the backend of your arrays, `from ntxent.torch import nt_xent`; this module
loads no framework.
"""

from __future__ import annotations

from importlib.util import find_spec

__all__ = ["__version__", "available_backends"]

__version__ = "0.1.0"

_FRAMEWORKS = {"numpy": "numpy", "torch": "torch"}


def available_backends() -> tuple[str, ...]:
    """The backends whose framework is installed.

    Returns
    -------
    tuple of str
        Some of "numpy" and "torch". Nothing is imported to find out.

    Examples
    --------
    >>> import ntxent
    >>> "numpy" in ntxent.available_backends()
    True
    """
    return tuple(name for name, module in _FRAMEWORKS.items() if find_spec(module) is not None)
