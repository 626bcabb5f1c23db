"""NT-Xent and its family for JAX: `from ntxent.jax import nt_xent`."""

from __future__ import annotations

try:
    import jax as _jax  # noqa: F401 the one import whose failure has a remedy to name
except ImportError as error:
    from ntxent._checks.arguments import missing_framework

    name = "jax"
    raise missing_framework(name, "JAX") from error

from ntxent.jax._losses.info_nce import info_nce
from ntxent.jax._losses.nt_xent import nt_xent
from ntxent.jax._losses.sup_con import sup_con

__all__ = ["info_nce", "nt_xent", "sup_con"]
