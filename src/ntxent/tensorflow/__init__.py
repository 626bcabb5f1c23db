"""NT-Xent and its family for TensorFlow: `from ntxent.tensorflow import nt_xent`."""

from __future__ import annotations

try:
    import tensorflow as tf  # noqa: F401 the one import whose failure has a remedy to name
except ImportError as error:
    from ntxent._checks.arguments import missing_framework

    name = "tensorflow"
    raise missing_framework(name, "TensorFlow") from error

from ntxent.tensorflow._losses.info_nce import info_nce
from ntxent.tensorflow._losses.nt_xent import nt_xent
from ntxent.tensorflow._losses.sup_con import sup_con
from ntxent.tensorflow._modules.losses import InfoNCELoss, NTXentLoss, SupConLoss

__all__ = ["InfoNCELoss", "NTXentLoss", "SupConLoss", "info_nce", "nt_xent", "sup_con"]
