"""Make nt_xent.json: frozen inputs with the NT-Xent loss and its gradients at 30 digits.

Independent of the library on purpose, and of its derivations. The loss is the papers' quotient,
-log(exp(s_ip/t) / sum of exp(s_ik/t)), evaluated as it stands: no softplus, no log-sum-exp, no
shift; what makes it right is precision, 200 digits more than the exponentials span. Gradients are
central differences of it, step 1e-60 of the row's length, each confirmed with half the step.

`python tests/vectors/make.py` rewrites the file (needs mpmath; takes a minute); with `--check` it
writes nothing, and fails if the stored file differs from what it computes.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from mpmath import mp, mpf

FILE = Path(__file__).with_name("nt_xent.json")
ABOUT = (
    "nt_xent(*views, temperature, ids, denominator, normalize), reduction mean. views: V arrays "
    "(N, d), numbers exact in float32 (and, but for the case 'norms', in bfloat16 and float16). "
    "temperature: the double nearest to what is written. ids: N integers; null: image numbers. "
    "Results are strings of 30 significant digits: loss; row_losses, V*N values, first view first; "
    "view_gradients and temperature_gradient, of the mean loss. A zero row that is to be "
    "normalised stays zero and has gradient 0 by definition. Made by make.py beside this file."
)
Rows = list[list[Any]]  # of float or mpf


class Case(NamedTuple):
    name: str
    views: list[Rows]
    temperature: float
    denominator: str = "all"
    ids: list[int] | None = None
    normalize: bool = True


def row_losses(case: Case, rows: Rows, temperature: mpf) -> list[mpf]:
    """The formula, term by term; `rows` and `temperature` stand in for the case's own."""
    images, everyone, kind = len(case.views[0]), range(len(rows)), case.denominator
    if case.normalize:
        rows = [[x / mp.norm(row) for x in row] if any(row) else row for row in rows]
    ids = (case.ids or list(range(images))) * len(case.views)
    losses = []
    for i in everyone:
        e = [mp.exp(mp.fdot(rows[i], rows[k]) / temperature) for k in everyone]
        positives = [e[p] for p in everyone if p % images == i % images and p != i]
        negatives = mp.fsum(e[k] for k in everyone if ids[k] != ids[i])
        shared = negatives + (mp.fsum(positives) if kind == "all" else 0)
        terms = [-mp.log(p / (shared + p * (kind == "one_positive"))) for p in positives]
        losses.append(mp.fsum(terms) / len(terms))
    return losses


def slope(case: Case, points: Rows, i: int, j: int) -> mpf:
    """d mean loss / d points[i][j]; the points are the rows and, last, [temperature]."""
    if case.normalize and not any(points[i]):
        return mpf(0)

    def loss(change: mpf) -> mpf:
        moved = [list(point) for point in points]
        moved[i][j] += change
        return mp.fsum(row_losses(case, moved[:-1], moved[-1][0])) / (len(points) - 1)

    step = (mp.norm(points[i]) or mpf(1)) * mpf(10) ** -60
    whole, half = ((loss(h) - loss(-h)) / (2 * h) for h in (step, step / 2))
    if abs(whole - half) <= mpf(10) ** -45 * abs(half):
        return half
    if max(abs(whole), abs(half)) * step < mpf(10) ** -150:
        return mpf(0)  # an exact zero, seen through what the differences leave
    raise ArithmeticError(whole, half)


def solved(case: Case) -> dict[str, Any]:
    """The case with its results, as it is stored."""
    rows, images = [row for view in case.views for row in view], len(case.views[0])
    largest = 1 if case.normalize else max(sum(x * x for x in row) for row in rows)
    with mp.workdps(200 + int(largest / case.temperature)):  # they span 0.87 times that many
        points = [[mpf(x) for x in point] for point in [*rows, [case.temperature]]]
        losses = row_losses(case, points[:-1], points[-1][0])
        slopes = [[slope(case, points, i, j) for j in range(len(p))] for i, p in enumerate(points)]
        return case._asdict() | {
            "loss": mp.fsum(losses) / len(losses),
            "row_losses": losses,
            "view_gradients": [slopes[k : k + images] for k in range(0, len(rows), images)],
            "temperature_gradient": slopes[-1][0],
        }


def draw(seed: int, views: int, images: int, width: int) -> list[Rows]:
    """Random multiples of 1/64 below 2 in magnitude, none of them 0: eight bits hold them."""
    number = Random(seed).random  # its sequence is promised for every Python version
    flat = [((int(number() * 254) - 127) or 127) / 64 for _ in range(views * images * width)]
    rows = [flat[k : k + width] for k in range(0, len(flat), width)]
    return [rows[k : k + images] for k in range(0, len(rows), images)]


def scaled(view: Rows, *factors: float) -> Rows:
    return [[x * factor for x in row] for row, factor in zip(view, factors, strict=True)]


def cases() -> Iterator[Case]:
    shapes = [(2, 5, 3, 0.01), (3, 3, 1, 1.0), (3, 2, 8, 0.001), (4, 2, 3, 10.0), (3, 5, 8, 0.1)]
    (first,) = draw(171, 1, 3, 8)  # no two within 67 degrees
    shifts = [[v * (j % 3 - 1) / 64 for j in range(8)] for v in (0, 1, -1)]
    close = [[[x + y for x, y in zip(r, s, strict=True)] for r in first] for s in shifts]
    for m, kind in ((2, "all"), (3, "one_positive"), (4, "negatives")):
        for v, n, d, t in shapes:
            yield Case(f"random_v{v}_n{n}_d{d}_t{t}_{kind}", draw(n + d, v, n, d), t, kind)
        yield Case(f"close_v2_t0.05_{kind}", close[:2], 0.05, kind)
        yield Case(f"close_v3_t0.01_{kind}", close, 0.01, kind)  # one_positive: a loss of 1e-27
        yield Case(f"identical_rows_v3_{kind}", [first[:1] * 2] * 3, 0.01, kind)
        (view,) = draw(20 + m, 1, m, 3)
        yield Case(f"antipodal_n{m}_{kind}", [view, scaled(view, *[-1] * m)], 0.005, kind)
        yield Case(f"ids_repeated_v3_{kind}", draw(31, 3, 5, 3), 0.5, kind, [7, -3, 7, 0, 0])
        yield Case(f"not_normalized_v3_{kind}", draw(35, 3, 2, 8), 1.0, kind, normalize=False)
    yield Case("close_v2_t0.01", close[:2], 0.01)
    yield Case("ids_beyond_2_24", draw(33, 2, 3, 3), 0.1, ids=[2**24, 2**24 + 1, 2**24 + 2])
    yield Case("one_image_v2", draw(13, 2, 1, 3), 0.1)
    yield Case("one_image_v3_one_positive", draw(14, 3, 1, 3), 0.5, "one_positive")
    yield Case("one_image_v3_all", draw(14, 3, 1, 3), 0.5)  # the positives compete: not 0
    first, second = draw(26, 2, 3, 3)
    yield Case("zero_row", [first, scaled(second, 1, 0, 1)], 0.1)
    yield Case("zero_row_not_normalized", [first, scaled(second, 1, 0, 1)], 0.5, normalize=False)
    (first, second), norms = draw(28, 2, 5, 3), [2.0**-66, 2.0**-40, 1, 2.0**40, 2.0**66]
    yield Case("norms", [scaled(first, *norms), scaled(second, *norms[::-1])], 0.1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    contents = {"about": ABOUT, "cases": [solved(case) for case in cases()]}
    text = json.dumps(contents, indent=1, default=lambda value: mp.nstr(value, 30)) + "\n"
    text = re.sub(r"\[[^][{}]*\]", lambda row: " ".join(row[0].split()), text)  # a row, a line
    if not check:
        FILE.write_text(text, encoding="utf-8")
    elif FILE.read_text(encoding="utf-8") != text:
        sys.exit(f"{FILE} is not what make.py computes")


if __name__ == "__main__":
    main()
