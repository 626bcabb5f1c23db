"""NT-Xent and its family for NumPy: `from ntxent.numpy import nt_xent, value_and_grad`."""

from ntxent.numpy._losses import info_nce, nt_xent, sup_con
from ntxent.numpy._value_and_grad import value_and_grad

__all__ = ["info_nce", "nt_xent", "sup_con", "value_and_grad"]
