"""NT-Xent for NumPy: `from ntxent.numpy import nt_xent, value_and_grad`."""

from ntxent.numpy._losses import nt_xent
from ntxent.numpy._value_and_grad import value_and_grad

__all__ = ["nt_xent", "value_and_grad"]
