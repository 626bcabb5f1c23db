"""Every two backends on the same numbers, all losses: `python tests/parity.py`.

It prints the worst difference of loss and gradient for each pair and dtype, and fails beyond the
bounds. Every two of loss, form, geometry, size, temperature and implementation meet; `--all` takes
all of them, of which most compile something anew. `--write` does too, and puts the table into
docs/numerics.md.
"""

from __future__ import annotations

import argparse
import itertools
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np

from _adapters import ADAPTERS, XLA_IN_HASTE, call
from _benchmarks import marks
from _cases import Case, oracle
from _covering import chosen
from _family import INFO_NCE, SUP_CON, Truth, info_nce_truth, sup_con_truth
from _tolerances import gradient_error, relative_error, tolerance

CASES: list[tuple[str, str, Case]] = [
    ("nt_xent", denominator, Case(geometry, views, images, dim, temperature))
    for geometry in ("random", "close", "identical", "zero row")
    for views, images, dim in ((2, 1, 5), (2, 17, 33), (2, 60, 128), (3, 12, 16))
    for temperature in (0.02, 0.1, 0.5)
    for denominator in ("all", "one_positive")
]
CASES += [("sup_con", *case) for case in SUP_CON if case[1].temperature > 0.01][::2]
CASES += [("info_nce", *case) for case in INFO_NCE if case[1].temperature > 0.01][::2]
EVERY = list(itertools.product(CASES, ("dense", "tiled")))
# In float32 each is within 1e-6 and 1e-5 of the truth, so two of them are within twice that.
BOUNDS = {"float64": (1e-12, 1e-10), "float32": (2e-6, 2e-5)}
Answer = tuple[Any, list[Any]]


def truth_of(loss: str, kind: str, case: Case, dtype: str) -> Truth:
    """Inputs, and what the sizes of errors are relative to."""
    if loss == "sup_con":
        return sup_con_truth(kind, case, dtype)
    if loss == "info_nce":
        return info_nce_truth(kind, case, dtype)
    found = oracle(case, dtype)
    anchors = found.rows == found.rows
    return Truth(
        found.inputs,
        {"denominator": kind},
        found.rows,
        found.loss,
        found.gradients,
        found.temperature_gradient,
        found.lengths,
        anchors,
    )


def answer(backend: Any, loss: str, truth: Truth, dtype: str, **more: Any) -> Answer:
    """The loss and the gradients of all arrays."""
    inputs = [backend.from_numpy(x, dtype) for x in truth.arrays]

    def fn(*arrays: Any) -> Any:
        return call(backend, loss, arrays, truth.options, **more)

    value, gradients = backend.value_and_grad(fn, inputs)
    shapes = [np.shape(x) for x in truth.gradients]
    return value, [np.reshape(g, s) for g, s in zip(gradients, shapes, strict=True)]


def some() -> list[Any]:
    """Of `EVERY` as many as let every two values meet."""

    def pairs(of: Any) -> Any:
        (loss, kind, case), implementation = of
        parts = loss, kind, case.geometry, case[1:4], case.temperature, implementation
        return itertools.combinations(enumerate(parts), 2)

    return [EVERY[place] for place in chosen(map(pairs, EVERY))]


def differences(device: str, every: bool, dtype: str) -> dict[tuple[str, str], tuple[float, float]]:
    """For each pair of backends the worst difference of loss and gradient, over max(1, 0.1/tau)."""
    backends = {name: adapter(device) for name, adapter in ADAPTERS.items()}
    worst = dict.fromkeys(itertools.combinations(backends, 2), (0.0, 0.0))
    for (loss, kind, case), implementation in EVERY if every else some():
        truth = truth_of(loss, kind, case, dtype)
        easing = tolerance(dtype, "loss", case.temperature) / tolerance(dtype, "loss", 1.0)
        options = {"temperature": case.temperature, "implementation": implementation}
        answers = {
            name: answer(backend, loss, truth, dtype, **options)
            for name, backend in backends.items()
        }
        for pair in worst:
            (value, gradients), (other, other_gradients) = (answers[name] for name in pair)
            losses = truth.rows[truth.anchors]
            found = (
                relative_error(value, other),
                gradient_error(
                    gradients, other_gradients, truth.lengths, losses, case.temperature, dtype
                ),
            )
            worst[pair] = tuple(max(a, b / easing) for a, b in zip(worst[pair], found, strict=True))
    return worst


def table(found: dict[str, dict[tuple[str, str], tuple[float, float]]]) -> str:
    """In Markdown, a row for each pair."""
    titles = [f"{what}, {dtype}" for dtype in found for what in ("loss", "gradient")]
    lines = [f"| | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for pair in next(iter(found.values())):
        cells = [f"{x:.0e}" for dtype in found for x in found[dtype][pair]]
        lines.append(f"| {' – '.join(pair)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table, write it if asked, and fail where two differ by more than the bounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--all", action="store_true", help="every case, not only some")
    parser.add_argument("--write", action="store_true", help="put the table into docs/numerics.md")
    options = parser.parse_args()
    missing = [name for name, adapter in ADAPTERS.items() if not adapter.installed()]
    if missing:
        parser.error(f"all backends must be installed; missing: {', '.join(missing)}")
    every = options.all or options.write
    if not every:
        os.environ.setdefault("XLA_FLAGS", XLA_IN_HASTE)
    # A process for each dtype, which spend their time compiling.
    count = len(BOUNDS) if options.device == "cpu" else 1
    with ProcessPoolExecutor(count, get_context("spawn")) as pool:
        given = [options.device] * len(BOUNDS), [every] * len(BOUNDS)
        found = dict(zip(BOUNDS, pool.map(differences, *given, BOUNDS), strict=True))
    count = len(EVERY if every else some())
    print(f"worst differences over {count} cases, relative, over max(1, 0.1 / temperature)")
    print(table(found))
    if options.write:
        marks.write("docs/numerics.md", parity=table(found))
    beyond = [
        f"{dtype}, {' – '.join(pair)}: {what} {error:.1e} > {bound:.0e}"
        for dtype, pairs in found.items()
        for pair, errors in pairs.items()
        for what, error, bound in zip(("loss", "gradient"), errors, BOUNDS[dtype], strict=True)
        if not error <= bound
    ]
    if beyond:
        raise SystemExit("\n".join(beyond))


if __name__ == "__main__":
    main()
