"""What is said of arrays that are refused or warned of: what came, and the line that is meant.

Standard library only; what is checked is in `arguments.py`.
"""

from __future__ import annotations

import inspect
import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple

HERE = str(Path(__file__).parents[1]) + os.sep  # the package
ONE_ELEMENT = ((), (1,))  # shapes of a temperature: PyTorch shards no parameter of the first


class Lines(NamedTuple):
    """How a backend's users write what turns their arrays into rows."""

    row: str  # for each image of z, whatever its shape
    views: str  # of z, (N, V, d), to be passed one by one
    rows: str  # of the same z, image by image
    labels: str  # of the N images, once for each of those rows; {} is V


def not_rows(lines: Lines, name: str, shape: tuple[int | None, ...]) -> str:
    """The message for a shape that isn't (N, d)."""
    msg = f"{name} must be 2-d, of shape (N, d): one row an image; got shape {shape}. "
    if len(shape) == 4:
        return f"{msg}Of feature maps, (N, C, H, W), pass {lines.row}."
    if len(shape) == 3 and name == "z":
        views = "V" if shape[1] is None else shape[1]
        return (
            f"{msg}Of {views} views of each image, (N, {views}, d), pass the rows image by image "
            f"and each label as often: sup_con({lines.rows}, {lines.labels.format(views)})."
        )
    if len(shape) == 3 and name.startswith("view"):
        return f"{msg}Pass {stacked(lines)}."
    return f"{msg}Reshape it to rows first."


def stacked(lines: Lines) -> str:
    """How views in one array are passed."""
    return f"nt_xent(*z) for stacked views, (V, N, d), and nt_xent(*{lines.views}) for (N, V, d)"


def other_argument(name: str, shape: tuple[int | None, ...], integers: bool, dtype: str) -> str:
    """The message for an array that must have been meant for another argument; "" if unknown."""
    if integers and len(shape) == 1:
        return (
            f"{name} must be rows, of shape (N, d); got {dtype} of shape {shape}, as labels or ids "
            "are. For labels use sup_con(z, labels); ids are named: ids=ids."
        )
    if shape in ONE_ELEMENT:
        return (
            f"{name} must be rows, of shape (N, d); got shape {shape}. If it is the temperature, "
            "name it: temperature=..."
        )
    return ""


def rows_as_labels(dtype: str, shape: tuple[int | None, ...]) -> str:
    """The message for labels that look like rows."""
    return (
        "labels must be integers of shape (n,), one for each row of z; "
        f"got {dtype} of shape {shape}. For two views without labels use nt_xent(z1, z2); "
        "of one-hot labels pass the argmax."
    )


def number(name: str, array: str, value: Any) -> str:
    """The message for a number in the place of an array."""
    return (
        f"{name} must be a {array}; got the number {value!r}. "
        f"If it is the temperature, name it: temperature={value!r}."
    )


def warn(msg: str) -> None:
    """A RuntimeWarning, at the line that called this package."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(HERE):
        level, frame = level + 1, frame.f_back
    warnings.warn(msg, RuntimeWarning, stacklevel=level)
