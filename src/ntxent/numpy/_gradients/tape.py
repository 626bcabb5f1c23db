"""A tape for `value_and_grad`: losses, each one step with its closed form, and + - * / of them.

A rule computes a value and says how a gradient flows back: (value, pullback), with `pullback(g)`
giving one gradient, or None, for each input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

Array = Any
Pullback = Callable[[Array], "Sequence[Array | None]"]
Rule = Callable[..., "tuple[Array, Pullback]"]


class Tape:
    """The steps of one evaluation, in order.

    A record is (places of the inputs, place of the output, pullback); arrays that were not traced
    have no place.
    """

    def __init__(self) -> None:
        self.size = 0
        self.records: list[tuple[list[int | None], int, Pullback]] = []

    def watch(self, value: Array) -> Traced:
        """An array whose gradient is wanted."""
        self.size += 1
        return Traced(value, self, self.size - 1)

    def apply(self, rule: Rule, inputs: Sequence[Any]) -> Traced:
        """Run a rule on inputs, traced or not, and record it."""
        return self.record(inputs, *rule(*map(untraced, inputs)))

    def record(self, inputs: Sequence[Any], value: Array, pullback: Pullback) -> Traced:
        """What was computed from inputs, traced or not."""
        places: list[int | None] = []
        for x in inputs:
            traced = type(x) is Traced
            if traced and x.tape is not self:
                msg = "gradients of gradients are not recorded: value_and_grad can't be nested."
                raise TypeError(msg)
            places.append(x.place if traced else None)
        found = self.watch(value)
        self.records.append((places, found.place, pullback))
        return found

    def gradients(self, output: int, upstream: Array, watched: Sequence[int]) -> list[Array | None]:
        """The gradients at the watched places, given the upstream gradient at the output."""
        grads = {output: upstream}
        for places, made, pullback in reversed(self.records):
            arrived = grads.pop(made, None)
            if arrived is None:
                continue
            for place, grad in zip(places, pullback(arrived), strict=True):
                if place is not None and grad is not None:
                    grads[place] = grads[place] + grad if place in grads else grad
        return [grads.get(place) for place in watched]


class Traced:
    """An array on a tape. It has the shape, the dtype and the arithmetic of an array, no more."""

    __slots__ = ("place", "tape", "value")

    def __init__(self, value: Array, tape: Tape, place: int) -> None:
        self.value, self.tape, self.place = value, tape, place

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.value.shape)

    @property
    def dtype(self) -> Any:
        return self.value.dtype

    def __len__(self) -> int:
        return len(self.value)

    def __repr__(self) -> str:
        return f"{self.value!r} under value_and_grad"

    def __format__(self, how: str) -> str:
        return format(self.value, how)

    def __add__(self, other: Any) -> Traced:
        return self.tape.apply(add, (self, other))

    def __radd__(self, other: Any) -> Traced:
        return self.tape.apply(add, (other, self))

    def __sub__(self, other: Any) -> Traced:
        return self.tape.apply(subtract, (self, other))

    def __rsub__(self, other: Any) -> Traced:
        return self.tape.apply(subtract, (other, self))

    def __mul__(self, other: Any) -> Traced:
        return self.tape.apply(multiply, (self, other))

    def __rmul__(self, other: Any) -> Traced:
        return self.tape.apply(multiply, (other, self))

    def __truediv__(self, other: Any) -> Traced:
        return self.tape.apply(divide, (self, other))

    def __rtruediv__(self, other: Any) -> Traced:
        return self.tape.apply(divide, (other, self))

    def __neg__(self) -> Traced:
        return self.tape.apply(subtract, (0.0, self))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Traced:
        """Arithmetic with an ndarray on the left, or by NumPy's names for it."""
        rule = {"add": add, "subtract": subtract, "multiply": multiply, "divide": divide}.get(
            ufunc.__name__
        )
        if rule is None or method != "__call__" or options:
            raise TypeError(UNSERVED.format(f"numpy.{ufunc.__name__}"))
        return self.tape.apply(rule, inputs)

    def __array_function__(self, function: Any, *_: Any) -> NoReturn:
        raise TypeError(UNSERVED.format(f"numpy.{function.__name__}"))

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(UNSERVED.format("a conversion to a plain array"))

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(UNSERVED.format(f".{name}"))

    def __bool__(self) -> bool:
        msg = "a loss under value_and_grad has no truth value; take it from the result instead."
        raise TypeError(msg)

    def __eq__(self, other: object) -> bool:
        return bool(self)

    __hash__ = None  # type: ignore[assignment]


UNSERVED = (
    "value_and_grad differentiates losses, and + - * / of losses and numbers; got {} of an array "
    "or a loss inside of it. Encode and index before it, pass views one by one, reduce by "
    'reduction="mean" or "sum", and do the rest with what value_and_grad returns.'
)


def unserved(name: str) -> Callable[..., NoReturn]:
    """The operator of a name that Python has for it, which says so."""

    def operator(*_: Any) -> NoReturn:
        raise TypeError(UNSERVED.format(name))

    return operator


REFUSED = {
    **dict.fromkeys(("pow", "rpow"), "**"),
    **dict.fromkeys(("matmul", "rmatmul"), "@"),
    **dict.fromkeys(("mod", "rmod"), "%"),
    **dict.fromkeys(("floordiv", "rfloordiv"), "//"),
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    **dict.fromkeys(("divmod", "rdivmod"), "divmod()"),
    **dict.fromkeys(("and", "rand"), "&"),
    **dict.fromkeys(("or", "ror"), "|"),
    **dict.fromkeys(("xor", "rxor"), "^"),
    "invert": "~",
    "pos": "unary +",
    "abs": "abs()",
    "float": "float()",
    "int": "int()",
    "complex": "complex()",
    "index": "a use as an index",
    "round": "round()",
    "getitem": "indexing",
    "setitem": "an assignment",
    "iter": "unpacking",
    "contains": "in",
}
for method, symbol in REFUSED.items():
    setattr(Traced, f"__{method}__", unserved(symbol))


def untraced(value: Any) -> Any:
    """The array behind a traced one; anything else as it is."""
    return value.value if type(value) is Traced else value


def add(a: Any, b: Any) -> tuple[Array, Pullback]:
    def pullback(g: Array) -> tuple[Array, ...]:
        return fitted(g, shape(a)), fitted(g, shape(b))

    return a + b, pullback


def subtract(a: Any, b: Any) -> tuple[Array, Pullback]:
    def pullback(g: Array) -> tuple[Array, ...]:
        return fitted(g, shape(a)), fitted(-g, shape(b))

    return a - b, pullback


def multiply(a: Any, b: Any) -> tuple[Array, Pullback]:
    def pullback(g: Array) -> tuple[Array, ...]:
        return fitted(g * b, shape(a)), fitted(g * a, shape(b))

    return a * b, pullback


def divide(a: Any, b: Any) -> tuple[Array, Pullback]:
    def pullback(g: Array) -> tuple[Array, ...]:
        return fitted(g / b, shape(a)), fitted(-(g / b) * (a / b), shape(b))

    return a / b, pullback


def shape(value: Any) -> tuple[int, ...]:
    """The shape of an array, () for a number."""
    return tuple(getattr(value, "shape", ()))


def fitted(grad: Array, wanted: tuple[int, ...]) -> Array:
    """The gradient of something that was broadcast: the sum over what it was spread to."""
    if tuple(grad.shape) == wanted:
        return grad
    if wanted == ():
        return grad.sum()
    msg = (
        f"arithmetic on losses takes equal shapes, or a number; got {wanted} where the result has "
        f"{tuple(grad.shape)}. Reshape or reduce one of them first."
    )
    raise TypeError(msg)
