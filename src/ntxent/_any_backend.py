"""Rows of any backend as NumPy's, for what only looks at them: diagnostics and pictures.

No framework is imported for it: an array is asked for what it can do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ntxent import _spec
from ntxent.numpy._operations.backend import OPS, native

Array = np.ndarray[Any, Any]


class Rows(NamedTuple):
    """The rows of all views, as the losses see them."""

    z: Array  # (n, d), the first view first; of unit length where they are normalised
    images: int  # n is a multiple of it
    ids: Array  # (n,), equal for rows that are never negatives of each other
    shifts: range  # how many rows further on each of a row's positives is, mod n


def checked_rows(
    views: Sequence[Any], ids: Any, normalize: bool, temperature: Any = _spec.TEMPERATURE
) -> Rows:
    """What `nt_xent` makes of views and ids, after the same checks."""
    views, ids = [to_numpy(view) for view in views], to_numpy(ids)
    _spec.check_nt_xent(OPS, _spec.Options(temperature, normalize), views, ids, "all")
    images = len(views[0])
    with np.errstate(all="ignore"):  # NaN and infinity show in the result
        z = OPS.unit_rows(views)[0] if normalize else OPS.stack(*views)
    ids = np.tile(np.arange(images) if ids is None else ids, len(views))
    return Rows(z, images, ids, range(images, len(z), images))


def to_numpy(value: Any) -> Any:
    """An array of any backend as NumPy's, bfloat16 as float32; all else as it came."""
    if not hasattr(value, "__array__"):
        return value
    if hasattr(value, "detach"):  # PyTorch's: off its graph, off its device
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    found = native(value if isinstance(value, np.ndarray) else np.asarray(value))
    return found.astype(np.float32) if found.dtype.name == "bfloat16" else found
