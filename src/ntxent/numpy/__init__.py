"""NT-Xent and its family for NumPy: `from ntxent.numpy import nt_xent, value_and_grad`."""

from ntxent.numpy._gradients.value_and_grad import value_and_grad
from ntxent.numpy._losses.info_nce import info_nce
from ntxent.numpy._losses.nt_xent import nt_xent
from ntxent.numpy._losses.sup_con import sup_con

__all__ = ["info_nce", "nt_xent", "sup_con", "value_and_grad"]
