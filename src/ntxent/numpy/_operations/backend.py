"""The `Ops` of NumPy: checks, the steps of the closed form, and the hot operation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from ntxent._checks.messages import Lines
from ntxent._closed_form.losses import Closed
from ntxent._closed_form.operations import ClosedOps
from ntxent._labels import Classes, classes
from ntxent._spec import Options
from ntxent.numpy._gradients.tape import Traced, untraced
from ntxent.numpy._pairs.logsumexp import IMPLEMENTATIONS, closed_pairs, logsumexp
from ntxent.numpy._pairs.tiled import Array


def native(value: Any) -> Any:
    """An array in this machine's order of bytes; all else as it came."""
    if isinstance(value, np.ndarray) and not value.dtype.isnative:
        return value.astype(value.dtype.newbyteorder("="))
    return value


class NumpyOps(ClosedOps):
    """What checks and the closed form ask, for arrays."""

    BACKEND = "numpy"
    ARRAY_NAME = "numpy.ndarray"
    FLOATS = frozenset(map(np.dtype, ("float64", "float32", "float16")))
    INTEGERS = frozenset(
        np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)
    )
    IMPLEMENTATIONS = IMPLEMENTATIONS
    LINES = Lines(
        row="z.reshape(len(z), -1)",
        views="z.swapaxes(0, 1)",
        rows="z.reshape(-1, z.shape[-1])",
        labels="numpy.repeat(labels, {})",
    )
    closed_pairs = staticmethod(closed_pairs)

    def accepts(self, value: Any) -> bool:
        # A masked array would lose its mask without a word, and a matrix multiplies in its own way.
        odd = isinstance(value, np.ma.MaskedArray | np.matrix)
        return isinstance(value, np.ndarray | Traced) and not odd

    def odd(self, value: Any) -> str | None:
        if isinstance(value, np.ma.MaskedArray):
            return "a numpy.ma.MaskedArray. Leave out the rows that are masked, or fill them."
        if isinstance(value, np.matrix):
            return "a numpy.matrix, which multiplies in a way of its own. Pass numpy.asarray of it."
        if hasattr(value, "toarray"):
            return "a sparse one. Pass its toarray()."
        return None

    def count(self, rows: Array) -> int:
        return len(rows)

    def cast(self, array: Array, dtype: Any) -> Array:
        return array.astype(dtype, copy=False)

    def softplus(self, x: Array) -> Array:
        """log(1 + exp(x)) to the last digit."""
        return np.logaddexp(x, 0)

    def sigmoid(self, x: Array, softplus: Array) -> Array:
        """The derivative of softplus, also to the last digit where it is small."""
        found: Array = np.exp(x - softplus)
        return found

    def parts(self, rows: Array, count: int) -> Sequence[Array]:
        """The rows of each of so many stacked arrays."""
        size = len(rows) // count
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def stacked_float64(self, arrays: Sequence[Array]) -> Array:
        return np.concatenate(arrays, dtype=np.float64)

    def lengths(self, rows: Array) -> Array:
        squares = np.vecdot(rows, rows)[..., None]
        return np.sqrt(np.where(squares == 0, math.inf, squares))

    def float32_quotient(self, rows: Array, lengths: Array) -> Array:
        # Into float32 at once: by way of a float64 quotient unit rows took 0.45 ms at n = 512 in
        # place of 0.13, and 7.2 at 8192 in place of 2.4, as new memory comes page by page.
        unit = np.empty(rows.shape, np.float32)
        return np.divide(rows, lengths, out=unit, casting="same_kind")

    def largest(self, rows: Array) -> Array:
        largest: Array = np.abs(rows).max(-1, keepdims=True)
        return np.where(largest == 0, 1.0, largest)

    def roll(self, rows: Array, shift: Any) -> Array:
        # A quarter of np.roll's time, which was a tenth of a batch of 16's.
        return np.concatenate((rows[-shift:], rows[:-shift]))

    def row_dot(self, a: Array, b: Array) -> Array:
        """The dot product of each row of `a` with the same row of `b`, summed in float64."""
        found: Array = np.einsum("ij,ij->i", a, b, dtype=np.float64)
        return found

    def classes(self, labels: Array, across: Any) -> Classes:
        del across
        return classes(np, labels, np.sort(labels), np.float64)

    def class_sums(self, rows: Array, groups: Array, across: Any) -> Array:
        del across
        # A group's number is where it begins among the sorted rows: `classes` found it so.
        begins, place = np.unique(groups, return_inverse=True)
        sums: Array = np.add.reduceat(rows[np.argsort(groups, kind="stable")], begins)
        return sums[place]

    def logsumexp(self, scores: Array) -> Array:
        """Along the rows of a matrix."""
        return logsumexp(scores, 1)

    def or_one(self, count: Array) -> Array:
        return np.where(count == 0, 1.0, count)

    def one_id(self, rows: Array, value: int) -> Array:
        return np.full(len(rows), value)

    def number(self, temperature: Any) -> float:
        """The value of an array of one element, for the check of its range."""
        found: float = untraced(temperature).item()
        return found

    def known(self, ids: Array) -> list[int]:
        found: list[int] = ids.tolist()
        return found

    def device(self, array: Any) -> str:
        del array
        return "cpu"

    def choose(self, device: Any) -> str:
        """What `implementation=None` means."""
        del device
        return "tiled"

    def devices(self) -> list[str]:
        """The devices of this machine."""
        return ["cpu"]

    def evaluate(
        self,
        loss: Any,
        closed: Callable[..., Closed],
        arrays: Sequence[Any],
        options: Options,
    ) -> Any:
        """The loss in closed form; `value_and_grad` passes traced arrays and differentiates."""
        del loss  # NumPy differentiates nothing
        inputs = options.temperature, *arrays
        needs = [type(x) is Traced for x in inputs]
        # NaN and infinity show in the loss; 1/0 and log 0 are meant.
        with np.errstate(all="ignore"):
            temperature, *rows = map(untraced, inputs)
            found = closed(self, rows, temperature, options._replace(temperature=None), needs)
        return found.value if not any(needs) else recorded(found, inputs)


def recorded(found: Closed, inputs: Sequence[Any]) -> Traced:
    """The loss as one step on the tape of its inputs."""
    value, saved, pullback, counts = found
    temperature, dtype = inputs[0], inputs[1].dtype

    def gradients(upstream: Any) -> Sequence[Any]:
        by_temperature, *stacks = pullback(saved, upstream)  # type: ignore[misc]
        if by_temperature is not None:
            by_temperature = by_temperature.astype(temperature.dtype).reshape(temperature.shape)
        parts = [
            [None] if grad is None else OPS.parts(grad.astype(dtype, copy=False), count)
            for grad, count in zip(stacks, counts, strict=True)
        ]
        return [by_temperature, *chain(*parts)]

    tape = next(x.tape for x in inputs if type(x) is Traced)
    return tape.record(inputs, value, gradients)


OPS: Any = NumpyOps(np)  # it has no more of `Ops` than the closed form asks
