"""The `Ops` of NumPy: checks, the steps of the closed form, and the hot operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from ntxent._closed import Closed
from ntxent._closed_numpy import Array, NumpyClosedOps
from ntxent._words import Lines
from ntxent.numpy._pair_logsumexp import IMPLEMENTATIONS, closed_pairs
from ntxent.numpy._tape import Traced, untraced


def native(value: Any) -> Any:
    """An array in this machine's order of bytes; all else as it came."""
    if isinstance(value, np.ndarray) and not value.dtype.isnative:
        return value.astype(value.dtype.newbyteorder("="))
    return value


class NumpyOps(NumpyClosedOps):
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
        temperature: Any,
        implementation: str | None,
        across: Any = None,
    ) -> Any:
        """The loss in closed form; `value_and_grad` passes traced arrays and differentiates."""
        del loss, across  # NumPy differentiates nothing, and is one process
        inputs = temperature, *arrays
        needs = [type(x) is Traced for x in inputs]
        # NaN and infinity show in the loss; 1/0 and log 0 are meant.
        with np.errstate(all="ignore"):
            plain, *rows = map(untraced, inputs)
            found = closed(self, rows, plain, implementation, needs)
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


OPS = NumpyOps()
