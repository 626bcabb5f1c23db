"""The contract: defaults, allowed values, every check and its wording. Standard library only.

The mathematics is in `_formula.py`; this page says what may be passed to it. All backends call
these checks, so all say the same words. A message tells what came, what was expected and what to
do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, NoReturn, Protocol

TEMPERATURE = 0.1
DENOMINATORS = ("all", "one_positive", "negatives")
REDUCTIONS = ("mean", "sum", "none")


class ArrayKind(Protocol):
    """What a backend tells about its arrays; every `_ops.py` module does."""

    BACKEND: str
    ARRAY_NAME: str
    FLOATS: frozenset[Any]
    INTEGERS: frozenset[Any]
    IMPLEMENTATIONS: tuple[str, ...]

    def accepts(self, value: Any) -> bool:
        """Whether the value is an array of this backend."""

    def device(self, array: Any) -> Any:
        """Where the array lives."""

    def number(self, temperature: Any) -> float | None:
        """The value of a 0-d array, None where reading it may wait or is impossible."""


def check_nt_xent(
    kind: ArrayKind,
    views: Sequence[Any],
    temperature: Any,
    ids: Any,
    denominator: str,
    reduction: str,
    implementation: str | None,
) -> None:
    """Refuse what `nt_xent` can't give a right number for."""
    check_views(kind, views)
    check_temperature(kind, temperature, views)
    check_choices(kind, denominator, reduction, implementation)
    if ids is not None:
        check_ids(kind, "ids", ids, views[0])
    if denominator == "negatives" and views[0].shape[0] == 1:
        raise ValueError(NO_NEGATIVES.format("N = 1"))


NO_NEGATIVES = (
    'denominator="negatives" needs at least one negative a row; got {}, which leaves none. '
    'Pass more than one image (with different ids), or use denominator="all".'
)


def check_views(kind: ArrayKind, views: Sequence[Any]) -> None:
    """Two or more float arrays of one shape (N, d), one dtype and one device."""
    if len(views) < 2:
        msg = (
            f"expected at least two views, each an array of shape (N, d); got {len(views)}. "
            "Pass them one by one: nt_xent(z1, z2); for stacked views, nt_xent(*z)."
        )
        raise ValueError(msg)
    first = views[0]
    check_rows(kind, "view 1", first)
    for number, view in enumerate(views[1:], 2):
        if not kind.accepts(view):
            raise TypeError(wrong_type(kind, f"view {number}", view))
        if view.shape != first.shape:
            msg = (
                f"all views must have one shape (N, d), row i of each from image i; "
                f"got {tuple(first.shape)} for view 1 and {tuple(view.shape)} for view {number}."
            )
            raise ValueError(msg)
        if view.dtype != first.dtype:
            msg = (
                f"all views must have one dtype; got {dtype_name(first.dtype)} for view 1 and "
                f"{dtype_name(view.dtype)} for view {number}. Convert one of them."
            )
            raise TypeError(msg)
        if kind.device(view) != kind.device(first):
            msg = (
                f"all views must be on one device; got {kind.device(first)} for view 1 and "
                f"{kind.device(view)} for view {number}. Move one of them."
            )
            raise ValueError(msg)


def check_rows(kind: ArrayKind, name: str, array: Any) -> None:
    """A float array of shape (N, d), neither of them 0."""
    if not kind.accepts(array):
        raise TypeError(wrong_type(kind, name, array))
    if len(array.shape) != 2:
        msg = (
            f"{name} must be 2-d, of shape (N, d): one row an image; got shape "
            f"{tuple(array.shape)}. Reshape it to rows first."
        )
        raise ValueError(msg)
    if 0 in array.shape:
        msg = (
            f"{name} must have at least one row and one column; got shape {tuple(array.shape)}. "
            "The loss of an empty batch has no value: leave it out."
        )
        raise ValueError(msg)
    if array.dtype not in kind.FLOATS:
        msg = (
            f"{name} must be of a real floating dtype, one of {dtype_names(kind.FLOATS)}; "
            f"got {dtype_name(array.dtype)}. Convert it first."
        )
        raise TypeError(msg)


def check_temperature(kind: ArrayKind, temperature: Any, views: Sequence[Any]) -> None:
    """A positive finite number, or a 0-d float array (whose value may not be known yet)."""
    if type(temperature) is float or is_number(temperature):
        check_range(temperature)
        return
    if not kind.accepts(temperature):
        msg = (
            f"temperature must be a number or a 0-d {kind.ARRAY_NAME}; "
            f"got {type(temperature).__name__} {temperature!r}. Pass a float."
        )
        raise TypeError(msg)
    if tuple(temperature.shape) != ():
        msg = (
            f"temperature must be 0-d; got shape {tuple(temperature.shape)}. "
            "One temperature serves the whole batch: pass temperature.reshape(())."
        )
        raise ValueError(msg)
    if temperature.dtype not in kind.FLOATS:
        msg = (
            f"temperature must be of a real floating dtype, one of {dtype_names(kind.FLOATS)}; "
            f"got {dtype_name(temperature.dtype)}. Convert it, or pass a float."
        )
        raise TypeError(msg)
    if kind.device(temperature) != kind.device(views[0]):
        msg = (
            f"temperature must be on the device of the views, {kind.device(views[0])}; "
            f"got {kind.device(temperature)}. Move one of them."
        )
        raise ValueError(msg)
    value = kind.number(temperature)
    if value is not None:
        check_range(value)


def is_number(value: Any) -> bool:
    """A real number, of Python or NumPy; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_number(temperature: Any) -> None:
    """A positive finite number, where an array has no place."""
    if not is_number(temperature):
        msg = (
            f"temperature must be a number here; got {type(temperature).__name__} "
            f"{temperature!r}. Pass a float; learn_temperature=True makes a parameter of it."
        )
        raise TypeError(msg)
    check_range(temperature)


def check_range(temperature: float | Real) -> None:
    """Positive and finite."""
    if not 0 < float(temperature) < math.inf:
        msg = (
            f"temperature must be positive and finite; got {temperature!r}. "
            "Usual values are 0.05 to 1."
        )
        raise ValueError(msg)


def check_ids(kind: ArrayKind, name: str, ids: Any, rows: Any) -> None:
    """An integer array of shape (N,) on the device of the rows."""
    if not kind.accepts(ids):
        raise TypeError(wrong_type(kind, name, ids))
    if ids.dtype not in kind.INTEGERS:
        msg = (
            f"{name} must be integers, one of {dtype_names(kind.INTEGERS)}, as they are compared "
            f"for equality; got {dtype_name(ids.dtype)}. "
            "Number the groups, for instance with numpy.unique(..., return_inverse=True)."
        )
        raise TypeError(msg)
    if tuple(ids.shape) != (rows.shape[0],):
        msg = (
            f"{name} must have shape ({rows.shape[0]},), one for each image (not for each view); "
            f"got {tuple(ids.shape)}."
        )
        raise ValueError(msg)
    if kind.device(ids) != kind.device(rows):
        msg = (
            f"{name} must be on the device of the views, {kind.device(rows)}; "
            f"got {kind.device(ids)}. Move one of them."
        )
        raise ValueError(msg)


def check_choices(
    kind: ArrayKind, denominator: str, reduction: str, implementation: str | None
) -> None:
    """Each a known string; no implementation means that the backend chooses."""
    if denominator not in DENOMINATORS:
        refuse_choice("denominator", denominator, DENOMINATORS)
    if reduction not in REDUCTIONS:
        refuse_choice("reduction", reduction, REDUCTIONS)
    if implementation is not None and implementation not in kind.IMPLEMENTATIONS:
        refuse_choice("implementation", implementation, kind.IMPLEMENTATIONS)


def refuse_choice(name: str, value: Any, allowed: Sequence[str]) -> NoReturn:
    """Say which strings are allowed."""
    listed = ", ".join(f'"{choice}"' for choice in allowed)
    msg = f"{name} must be one of {listed}; got {value!r}."
    raise ValueError(msg)


def wrong_type(kind: ArrayKind, name: str, value: Any) -> str:
    """The message for something that isn't this backend's array."""
    came = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    return (
        f"{name} must be a {kind.ARRAY_NAME} for ntxent.{kind.BACKEND}; got {came}. "
        "Convert it, or import the loss from the backend of your arrays."
    )


def dtype_names(dtypes: frozenset[Any]) -> str:
    """`float16, float32`: the bare names, sorted."""
    return ", ".join(sorted(map(dtype_name, dtypes)))


def dtype_name(dtype: Any) -> str:
    """`float32`, whatever the framework writes around it."""
    return getattr(dtype, "name", "") or str(dtype).removeprefix("torch.")


def missing_framework(backend: str, framework: str) -> ImportError:
    """The error of `import ntxent.<backend>` on a machine without its framework."""
    return ImportError(
        f'ntxent.{backend} needs {framework}; install it with: pip install "ntxent[{backend}]"'
    )
