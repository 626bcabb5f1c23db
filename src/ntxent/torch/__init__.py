"""NT-Xent for PyTorch: `from ntxent.torch import nt_xent`."""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401 the one import whose failure has a remedy to name
except ImportError as error:
    from ntxent._spec import missing_framework

    msg = "torch"
    raise missing_framework(msg, "PyTorch") from error

from ntxent.torch._losses import nt_xent
from ntxent.torch._modules import NTXentLoss

__all__ = ["NTXentLoss", "nt_xent"]
