"""NT-Xent for TensorFlow: `from ntxent.tensorflow import nt_xent`."""

from __future__ import annotations

try:
    import tensorflow as tf  # noqa: F401 the one import whose failure has a remedy to name
except ImportError as error:
    from ntxent._spec import missing_framework

    msg = "tensorflow"
    raise missing_framework(msg, "TensorFlow") from error

from ntxent.tensorflow._keras import NTXentLoss
from ntxent.tensorflow._losses import nt_xent

__all__ = ["NTXentLoss", "nt_xent"]
