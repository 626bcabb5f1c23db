"""A batch cut into shards, and what one process makes of the whole of it.

The contract: the mean of the processes' losses is the loss of the whole batch, and the mean of
their gradients its gradient. A shard of rows is on one process alone, so its gradient there is as
many times the whole batch's as there are processes; the temperature is on all of them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from _benchmarks import marks

Array = Any
PAGE = "docs/scaling.md"
DIM, TEMPERATURE = 7, 0.2

# float64: of the loss absolutely, of the gradient relative to its largest entry
LOSS, GRADIENT = 1e-12, 1e-10

LOSSES = {
    "nt_xent": ("nt_xent", {}),
    "nt_xent, three views": ("nt_xent", {}),
    "nt_xent, decoupled, sum": ("nt_xent", {"denominator": "negatives", "reduction": "sum"}),
    "nt_xent, ids": ("nt_xent", {}),
    "nt_xent, dot products": ("nt_xent", {"normalize": False}),
    "sup_con": ("sup_con", {}),
    "sup_con, sum": ("sup_con", {"reduction": "sum"}),
    "info_nce": ("info_nce", {}),
    "info_nce, symmetric, ids": ("info_nce", {"symmetric": True}),
    "info_nce, queue": ("info_nce", {}),
    "info_nce, symmetric, queue, ids": ("info_nce", {"symmetric": True}),
    "info_nce, own negatives": ("info_nce", {}),
}
# rows of each process
EVEN = ((5,), (6, 6), (4, 4, 4), (5, 5, 5, 5))
UNEVEN = ((6, 3), (1, 5, 4), (3, 7, 2, 5))


class Shards(NamedTuple):
    """A call: float arrays, and integers by name, of each process; and of one that holds all."""

    loss: str
    options: dict[str, Any]
    arrays: list[list[Array]]  # of each process: positional, differentiated
    integers: list[dict[str, Array]]  # of each process: ids or labels
    whole_arrays: list[Array]
    whole_integers: dict[str, Array]


class Truth(NamedTuple):
    """Of the whole batch on one process."""

    loss: float
    gradients: list[Array]
    by_temperature: float


@cache
def shards(name: str, sizes: tuple[int, ...]) -> Shards:
    """Different data on every process, in float64; ids and labels meet across processes."""
    rng = np.random.default_rng(sum(sizes))
    loss, options = LOSSES[name]

    def rows(count: int, *shape: int) -> Array:
        return rng.standard_normal((count, *shape, DIM))

    def some(count: int, most: int) -> Array:
        return rng.integers(0, most, count).astype(np.int32)

    arrays, integers = [], []
    for size in sizes:
        own = [rows(size) for _ in range(3 if "three" in name else 2)]
        numbers = {}
        if loss == "sup_con":
            own, numbers = own[:1], {"labels": some(size, 4)}
        queued = size + 2 if "queue" in name else 0
        if queued:
            own.append(rows(queued))
        if "own" in name:
            own.append(rows(size, 3))
        if "ids" in name:
            numbers["ids"] = some(size + queued, sum(sizes))
        arrays.append(own)
        integers.append(numbers)
    together = {
        key: np.concatenate(
            [x[key][:size] for x, size in zip(integers, sizes, strict=True)]
            + [x[key][size:] for x, size in zip(integers, sizes, strict=True)]
        )
        for key in integers[0]
    }
    whole = [np.concatenate(parts) for parts in zip(*arrays, strict=True)]
    return Shards(loss, options, arrays, integers, whole, together)


@cache
def truth(name: str, sizes: tuple[int, ...]) -> Truth:
    """By the dense form of `ntxent.numpy`, which other tests hold to the loops."""
    import ntxent.numpy

    case = shards(name, sizes)

    def fn(*arrays: Any) -> Any:
        *given, temperature = arrays
        integers = dict(case.whole_integers)
        if "labels" in integers:
            given.append(integers.pop("labels"))
        options = {**case.options, **integers, "implementation": "dense"}
        return getattr(ntxent.numpy, case.loss)(*given, temperature=temperature, **options)

    loss, gradients = ntxent.numpy.value_and_grad(fn)(*case.whole_arrays, np.array(TEMPERATURE))
    return Truth(float(loss), list(gradients[:-1]), float(gradients[-1]))


def errors(
    name: str,
    sizes: tuple[int, ...],
    losses: Sequence[float],
    gradients: Sequence[Sequence[Array]],
    by_temperature: Sequence[float],
) -> tuple[float, float]:
    """Of the mean loss, and of the mean gradient relative to its largest entry.

    `gradients` are those of each process's arrays, as its own call to autodiff gives them.
    """
    expected, processes = truth(name, sizes), len(sizes)
    worst = abs(float(np.mean(by_temperature)) / expected.by_temperature - 1)
    for parts, whole in zip(zip(*gradients, strict=True), expected.gradients, strict=True):
        mean = np.concatenate(parts) / processes
        worst = max(worst, float(np.abs(mean - whole).max() / np.abs(whole).max()))
    return abs(float(np.mean(losses)) - expected.loss), worst


def few_positives(sizes: Sequence[int], pair: bool) -> tuple[Array, Array]:
    """Rows and labels of all processes; of the labels two are alike, on the first and the last.

    Or none are. Fewer rows than processes may then have a positive, less than one on average.
    """
    count = sum(sizes)
    labels = np.arange(count)
    labels[-1] = 0 if pair else count - 1
    return np.random.default_rng(count).standard_normal((count, DIM)), labels


Cells = dict[tuple[str, str], dict[tuple[int, ...], tuple[float, float]]]


def table(cells: Cells) -> str:
    """Errors of loss and gradient of each (loss, how) and batch; past the tolerance it is one."""
    batches = list(next(iter(cells.values())))
    heads = [f"{len(sizes)}: {' '.join(map(str, sizes))}" for sizes in batches]
    lines = [f"| loss | how | {' | '.join(heads)} |", "|---|---|" + "---|" * len(batches)]
    for (name, how), found in cells.items():
        for sizes, (loss, gradient) in found.items():
            if loss > LOSS or gradient > GRADIENT:
                msg = f"{name}, {how}, {sizes}: {loss:.1e}, {gradient:.1e}"
                raise AssertionError(msg)
        shown = [f"{loss:.0e}, {gradient:.0e}" for loss, gradient in found.values()]
        lines.append(f"| {name} | {how} | {' | '.join(shown)} |")
    return "\n".join(lines)


def show(backend: str, cells: Cells) -> None:
    """Print the table; with --write also into docs/scaling.md."""
    text = table(cells)
    print(text)
    if "--write" in sys.argv[1:]:
        marks.write(PAGE, **{backend: text})
