"""The checks of single arguments, and their wording; `_spec` puts them together, loss by loss.

A message tells what came, what was expected and what to do. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, NoReturn, Protocol

from ntxent._checks import messages
from ntxent._checks.messages import ONE_ELEMENT, Lines

DENOMINATORS = ("all", "one_positive", "negatives")
REDUCTIONS = ("mean", "sum", "none")
EXCHANGES = ("gather", "ring")


class ArrayKind(Protocol):
    """What a backend tells about its arrays; every `_operations/backend.py` does."""

    BACKEND: str
    ARRAY_NAME: str
    FLOATS: frozenset[Any]
    INTEGERS: frozenset[Any]
    IMPLEMENTATIONS: tuple[str, ...]
    LINES: Lines

    def accepts(self, value: Any) -> bool:
        """Whether the value is an array of this backend."""

    def odd(self, value: Any) -> str | None:
        """What an array of the framework is that isn't accepted, and what to pass instead."""

    def device(self, array: Any) -> Any:
        """Where the array lives."""

    def number(self, temperature: Any) -> float | None:
        """The value of an array of one element, None where reading it may wait or can't be."""

    def known(self, ids: Any) -> list[int] | None:
        """The ids as numbers, None where they can't be known yet."""


def check_negatives(kind: ArrayKind, negatives: Any, query: Any) -> None:
    """Float rows of the queries' length: (K, d) for all queries, or (N, M, d), M for each."""
    if not kind.accepts(negatives):
        raise TypeError(wrong_type(kind, "negatives", negatives))
    shape, (pairs, dim) = tuple(negatives.shape), query.shape
    own = len(shape) == 3
    fits = own and not differ(shape[0], pairs)
    if not (fits or len(shape) == 2) or differ(shape[-1], dim) or 0 in shape:
        msg = (
            f"negatives must have shape (K, {dim}), shared by all queries, or ({pairs}, M, {dim}), "
            f"M of each query's own, K and M at least 1; got {shape}. Leave them out (None) if "
            "there are none."
        )
        raise ValueError(msg)
    check_match(kind, query, negatives, ("query", "negatives"), "query, key and negatives")


def check_alike(
    kind: ArrayKind, arrays: Sequence[Any], name: Callable[[int], str], group: str, of: str
) -> None:
    """Float arrays of one shape (N, d), one dtype and one device; `name` of each by its number."""
    first, *others = arrays
    check_rows(kind, name(0), first)
    for number, array in enumerate(others, 1):
        if not kind.accepts(array):
            raise TypeError(wrong_type(kind, name(number), array))
        if array.shape != first.shape:
            refuse_other_argument(kind, name(number), array)
            msg = (
                f"{group} must have one shape (N, d), row i of each from {of} i; "
                f"got {tuple(first.shape)} for {name(0)} and {tuple(array.shape)} for "
                f"{name(number)}."
            )
            raise ValueError(msg)
        check_match(kind, first, array, (name(0), name(number)), group)


def check_match(kind: ArrayKind, first: Any, other: Any, names: Sequence[str], group: str) -> None:
    """One dtype and one device."""
    if other.dtype != first.dtype:
        msg = (
            f"{group} must have one dtype; got {dtype_name(first.dtype)} for {names[0]} and "
            f"{dtype_name(other.dtype)} for {names[1]}. Convert one of them."
        )
        raise TypeError(msg)
    if kind.device(other) != kind.device(first):
        msg = (
            f"{group} must be on one device; got {kind.device(first)} for {names[0]} and "
            f"{kind.device(other)} for {names[1]}. Move one of them."
        )
        raise ValueError(msg)


def check_device(kind: ArrayKind, name: str, array: Any, rows: Any) -> None:
    """That of the rows."""
    if kind.device(array) != kind.device(rows):
        msg = (
            f"{name} must be on the device of the rows, {kind.device(rows)}; "
            f"got {kind.device(array)}. Move one of them."
        )
        raise ValueError(msg)


def size(rows: Any) -> int | None:
    """How many rows; None where that isn't known before it runs."""
    found: int | None = rows.shape[0]
    return found


def differ(a: int | None, b: int | None) -> bool:
    """Whether two sizes are known to differ."""
    return a is not None and b is not None and a != b


def check_rows(kind: ArrayKind, name: str, array: Any) -> None:
    """A float array of shape (N, d), neither of them 0."""
    if not kind.accepts(array):
        raise TypeError(wrong_type(kind, name, array))
    if len(array.shape) != 2:
        refuse_other_argument(kind, name, array)
        raise ValueError(messages.not_rows(kind.LINES, name, tuple(array.shape)))
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


def refuse_other_argument(kind: ArrayKind, name: str, array: Any) -> None:
    """Refuse labels and temperatures in the place of rows."""
    integers = array.dtype in kind.INTEGERS
    shape, dtype = tuple(array.shape), dtype_name(array.dtype)
    msg = messages.other_argument(name, shape, integers, dtype)
    if msg:
        raise TypeError(msg)


def check_temperature(kind: ArrayKind, temperature: Any, rows: Any) -> None:
    """A positive finite number, or a float array of one (whose value may not be known yet)."""
    if type(temperature) is float or is_number(temperature):
        check_range(temperature)
        return
    if not kind.accepts(temperature):
        if kind.odd(temperature) is not None:
            raise TypeError(wrong_type(kind, "temperature", temperature))
        msg = (
            f"temperature must be a number or a {kind.ARRAY_NAME} of one element; "
            f"got {type(temperature).__name__} {temperature!r}. Pass a float."
        )
        raise TypeError(msg)
    if tuple(temperature.shape) not in ONE_ELEMENT:
        msg = (
            f"temperature must be one number, of shape () or (1,); got shape "
            f"{tuple(temperature.shape)}. One temperature serves the whole batch: pass one element."
        )
        raise ValueError(msg)
    if temperature.dtype not in kind.FLOATS:
        msg = (
            f"temperature must be of a real floating dtype, one of {dtype_names(kind.FLOATS)}; "
            f"got {dtype_name(temperature.dtype)}. Convert it, or pass a float."
        )
        raise TypeError(msg)
    check_device(kind, "temperature", temperature, rows)
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
    try:
        fits = 0 < float(temperature) < math.inf
    except OverflowError:
        fits = False
    if not fits:
        msg = (
            f"temperature must be positive and finite; got {temperature!r}. "
            "Usual values are 0.05 to 1."
        )
        raise ValueError(msg)


def check_ids(
    kind: ArrayKind, name: str, ids: Any, rows: Any, count: int | None, words: str
) -> None:
    """An integer array of shape (count,) on the device of the rows."""
    if not kind.accepts(ids):
        raise TypeError(wrong_type(kind, name, ids))
    if ids.dtype not in kind.INTEGERS:
        if name == "labels" and len(ids.shape) == 2:
            raise TypeError(messages.rows_as_labels(dtype_name(ids.dtype), tuple(ids.shape)))
        msg = (
            f"{name} must be integers, one of {dtype_names(kind.INTEGERS)}, as they are compared "
            f"for equality; got {dtype_name(ids.dtype)}. "
            "Number the groups, for instance with numpy.unique(..., return_inverse=True)."
        )
        raise TypeError(msg)
    if len(ids.shape) != 1 or differ(ids.shape[0], count):
        msg = f"{name} must have shape ({count},), {words}; got {tuple(ids.shape)}."
        raise ValueError(msg)
    check_device(kind, name, ids, rows)


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


def check_switches(**switches: Any) -> None:
    """Each True or False, NumPy's or Python's."""
    for name, value in switches.items():
        if type(value).__name__ not in {"bool", "bool_"}:
            msg = f"{name} must be True or False; got {type(value).__name__} {value!r}."
            raise TypeError(msg)


def check_exchange(exchange: Any) -> None:
    """How rows of other processes come: a known string, or None."""
    if exchange is not None and exchange not in EXCHANGES:
        refuse_choice("exchange", exchange, EXCHANGES)


def refuse_choice(name: str, value: Any, allowed: Sequence[str]) -> NoReturn:
    """Say which strings are allowed."""
    listed = ", ".join(f'"{choice}"' for choice in allowed)
    msg = f"{name} must be one of {listed}; got {value!r}."
    raise ValueError(msg)


def wrong_type(kind: ArrayKind, name: str, value: Any) -> str:
    """The message for something that isn't this backend's array, or isn't served."""
    if is_number(value):
        return messages.number(name, kind.ARRAY_NAME, value)
    odd = kind.odd(value)
    if odd is not None:
        return f"{name} must be a plain {kind.ARRAY_NAME}; got {odd}"
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
