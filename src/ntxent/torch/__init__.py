"""NT-Xent and its family for PyTorch: `from ntxent.torch import nt_xent`."""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401 the one import whose failure has a remedy to name
except ImportError as error:
    from ntxent._checks.arguments import missing_framework

    name = "torch"
    raise missing_framework(name, "PyTorch") from error

from ntxent.torch._losses.info_nce import info_nce
from ntxent.torch._losses.nt_xent import nt_xent
from ntxent.torch._losses.sup_con import sup_con
from ntxent.torch._modules.losses import InfoNCELoss, NTXentLoss, SupConLoss

__all__ = ["InfoNCELoss", "NTXentLoss", "SupConLoss", "info_nce", "nt_xent", "sup_con"]
