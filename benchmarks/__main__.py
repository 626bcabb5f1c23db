"""Is it faster and smaller than what I use today, on my machine?

python -m benchmarks --quick           about two minutes on two cores
python -m benchmarks                   every size; says first how long it will take
python -m benchmarks --claims          the claims about speed and size, with their targets
python -m benchmarks --table           README's table, from the last run of --claims
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import cases, claims, figure, measure, report
from benchmarks.report import Row

BUSY = """\
Other processes took up to {:.0%} of the cores: times are too long, most of all those of ntxent,
which shares many small tiles among its threads and waits each time for the slower one. Run again
on an idle machine."""


def main() -> int:
    """Run, or render what a run left."""
    options = parsed()
    rendering = options.table or options.write_readme or options.check_readme or options.figure
    if rendering:
        return render(options, report.read_csv(options.csv or report.RESULTS / "claims.csv"))
    if options.claims:
        name, todo = "claims", cases.possible(claims.CASES)
    elif options.quick:
        name, todo = "quick", cases.quick()
    else:
        name, todo = "full", cases.full()
    rows = run(todo)
    path = options.csv or report.RESULTS / f"{name}.csv"
    report.write_csv(path, rows)
    print(f"\nwritten: {path.name}")
    held = True
    if options.claims:
        lines, held = claims.verdicts(rows)
        print("\n".join(["", *lines]))
    return 0 if held and not any(row.failed for row in rows) else 1


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--quick", action="store_true", help="a few sizes")
    choice.add_argument("--claims", action="store_true", help="exactly the claims")
    choice.add_argument("--table", action="store_true", help="print README's table")
    choice.add_argument("--write-readme", action="store_true", help="put it into README.md")
    choice.add_argument("--check-readme", action="store_true", help="fail if it isn't there")
    choice.add_argument("--figure", action="store_true", help="draw docs/figures/speed.svg")
    parser.add_argument("--csv", type=Path, help="the file to write, or to render from")
    return parser.parse_args()


def render(options: argparse.Namespace, rows: Sequence[Row]) -> int:
    """The table, README or the figure, from rows of an earlier run."""
    if options.figure:
        figure.draw(rows)
        return 0
    table = report.table(rows)
    if options.table:
        print(table)
        return 0
    found = report.README.read_text()
    wanted = report.readme_with(table, found)
    if options.write_readme:
        report.README.write_text(wanted)
    elif found != wanted:
        print("README.md differs from the results: python -m benchmarks --write-readme")
        return 1
    return 0


def run(todo: Sequence[cases.Case]) -> list[Row]:
    """All cases, with a line for each form as soon as it is known."""
    minutes = math.ceil(sum(case.seconds for case in todo) / 60)
    print(f"about {minutes} min on two cores; faster, smaller: than the library's first form")
    print(report.HEADER)
    begun = time.monotonic()
    rows: list[Row] = []
    for number, case in enumerate(todo, 1):
        progress(f"[{number}/{len(todo)}] {case.library}, N={case.images} ...")
        found = report.with_ratios(measured(case))
        progress("")
        for row in found:
            print(report.line(row), flush=True)
        rows += found
    print(f"took {(time.monotonic() - begun) / 60:.1f} minutes")
    busiest = max((row.others_busy_ratio or 0 for row in rows), default=0)
    if busiest > 0.1:
        print(BUSY.format(busiest))
    return rows


def progress(text: str) -> None:
    """A line that the next one replaces, on a terminal only."""
    if sys.stdout.isatty():
        print(f"\r{text:<79}\r{text}", end="" if text else "\r", flush=True)


def measured(case: cases.Case) -> list[Row]:
    """A row for each form, with its time and, where asked, its memory."""
    clock = report.Clock()
    if case.once:
        answers = {key: measure.memory_of(key, case.images) for key in case.forms}
    else:
        answers = measure.time_forms(case.forms, case.images, case.repeats)
        for key in case.memory:
            memory = measure.memory_of(key, case.images)
            memory.pop("times_ms", None)  # it had no warm-up of its size
            answers[key] = memory | answers.get(key, {})
    busy = clock.others()
    return [report.make_row(key, case.images, answer, busy) for key, answer in answers.items()]


if __name__ == "__main__":
    sys.exit(main())
